package config

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestNew checks that "config check" accepts each new configuration without a warning, and finds
// the options in it.
func TestNew(t *testing.T) {
	for _, r := range runtimes {
		for _, tt := range []struct {
			options []string
			want    []string // lines of "config check", without spaces
		}{
			{[]string{"--subnet", "10.200.1.0/24"}, []string{"ipMasqtrue", "oneaddressfrom10.200.1.1-10.200.1.254,gateway10.200.1.1"}},
			{[]string{"--subnet", "10.200.1.0/24", "--subnet", "fd99::/64", "--masquerade=false", "--firewalld", "--name", "mine", "--bridge", "br7"},
				[]string{"ipMasqfalse(default)", `forward"firewalld"`, `bridge"br7"`, "networkmine,CNIversion1.1.0", "oneaddressfromfd99::1-fd99::ffff:ffff:ffff:ffff,gatewayfd99::1"}},
			{[]string{"--subnet", "10.200.1.0/24", "--masq-exclude", "10.0.0.0/8", "--masq-exclude", "fd00::/8"}, []string{`masqExclude["10.0.0.0/8","fd00::/8"]`}},
		} {
			t.Run(r.option+" "+strings.Join(tt.options, " "), func(t *testing.T) {
				conf, err := run(t, append([]string{"new", "--for", r.option}, tt.options...)...)
				if err != nil {
					t.Fatal(err)
				}
				out, err := run(t, "check", write(t, conf))
				if err != nil || strings.Contains(out, "warning") {
					t.Errorf("%v: %s", err, out)
				}
				for _, want := range tt.want {
					if !strings.Contains(strings.ReplaceAll(out, " ", ""), want) {
						t.Errorf("the output has no line with %s:\n%s", want, out)
					}
				}
			})
		}
	}
}

// TestNewMistakes checks that a wrong option gives an error and no configuration.
func TestNewMistakes(t *testing.T) {
	for _, tt := range []struct{ options, want string }{
		{"--for docker", `--for: "docker" is none of containerd, cri-o, kubernetes, nerdctl, podman`},
		{"--for kubernetes", "--subnet: it is missing, because each node needs a range of its own; give the podCIDR of this node"},
		{"--subnet 10.200.1.7/24", "ipam.ranges[0][0].subnet: 10.200.1.7/24 has host bits set; write 10.200.1.0/24"},
		{"--subnet ten", `ipam.ranges[0][0].subnet: "ten" is not a subnet; write it as 10.1.0.0/16 or fd00:1::/64`},
		{"--subnet 10.200.0.0/16 --subnet 10.200.1.0/24", "ipam.ranges: 10.200.0.1-10.200.255.254 and 10.200.1.1-10.200.1.254 overlap; change their bounds, since an address can be in one range only"},
		{"--subnet 127.5.0.0/16", "--subnet: 127.5.0.0/16 overlaps with 127.0.0.1/8 of the link lo; choose another subnet"},
		{"--subnet 10.200.1.0/24 --name a/b", `name: "a/b": invalid characters found in network name; use letters, digits, hyphens and dots`},
		{"--subnet 10.200.1.0/24 --bridge a/b", `bridge: "a/b" is no valid link name: interface name contains / or : or whitespace characters; use up to 15 letters and digits`},
		{"--subnet 10.200.1.0/24 --masquerade=false --masq-exclude 10.0.0.0/8", `masqExclude: it has no effect without ipMasq; set "ipMasq", or leave the key out`},
	} {
		out, err := run(t, append([]string{"new"}, strings.Fields(tt.options)...)...)
		if err == nil || err.Error() != tt.want || out != "" {
			t.Errorf("%s: got %q, %v\nwant %s", tt.options, out, err, tt.want)
		}
	}
}

// TestNewBridge checks that the bridge may be new or exist, and that a link of another kind is refused.
func TestNewBridge(t *testing.T) {
	setuptest.EnterHost(t)
	setuptest.Run(t, "sh", "-ec", `ip link add br0 type bridge; ip link add eth0 type veth peer name other
		ip link property add dev br0 altname lan; ip link property add dev other altname cni0`)
	for _, tt := range []struct{ options, want string }{
		{"--bridge new", ""},
		{"--bridge br0", ""},
		{"--bridge eth0", `--bridge: eth0 is of type "veth": the link is not a bridge; choose a name that no link of this host has, or the name of a bridge`},
		{"--bridge lo", `--bridge: lo is of type "none": the link is not a bridge; choose a name that no link of this host has, or the name of a bridge`},
		{"--bridge lan", `bridge lan: lan is only an alternative name of br0; set "bridge" to "br0", or remove the alternative name: ip link property del dev br0 altname lan`},
		{"", `--bridge: other is of type "veth": the link is not a bridge; choose a name that no link of this host has, or the name of a bridge`}, // cni0
	} {
		out, err := run(t, append([]string{"new"}, strings.Fields(tt.options)...)...)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want || (out == "") != (err != nil) {
			t.Errorf("%s: got %q, %q\nwant %q", tt.options, out, got, tt.want)
		}
	}
}

// TestNewElsewhere checks that a folder with the name of the network in the working directory has no
// effect. An example is /etc/containers, whose files are no plugins.
func TestNewElsewhere(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("containers", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("containers/storage.conf", []byte("[storage]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "new", "--for", "podman", "--subnet", "10.200.1.0/24"); err != nil {
		t.Error(err)
	}
}
