package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
)

// run runs "bvctl config" and returns its output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd, out := New(nil), &bytes.Buffer{}
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetOut(out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

// write writes a configuration into a file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.conflist")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheckMistakes checks that each mistake is on a line of its own, with the text of ADD.
func TestCheckMistakes(t *testing.T) {
	list := func(plugins string) string {
		return `{"cniVersion": "1.0.0", "name": "net", "plugins": [` + plugins + `]}`
	}
	for _, tt := range []struct {
		name, conf string
		want       []string // without the name of the file
	}{
		{"no JSON", "{\n\"name\": \"net\",\n}", []string{"line 3: error parsing configuration list: invalid character '}' looking for beginning of object key string"}},
		{"empty", "", []string{"line 1: error parsing configuration list: unexpected end of JSON input"}},
		{"no name", `{"plugins": [{"type": "bridgeveth"}]}`, []string{"error parsing configuration list: no name"}},
		{"a name that libcni refuses", `{"cniVersion": "1.0.0", "name": "a b", "plugins": [{"type": "bridgeveth"}]}`,
			[]string{`name: "a b": invalid characters found in network name; use letters, digits, hyphens and dots`}},
		{"a version that the plugins do not know", `{"cniVersion": "9.9.9", "name": "net", "plugins": [{"type": "bridgeveth"}]}`,
			[]string{`cniVersion: "9.9.9" is not supported; use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`}},
		{"no type", list(`{"bridge": "br0"}`), []string{"failed to parse plugin config 0: error parsing configuration: missing 'type'"}},
		{"no list", `{"cniVersion": "1.0.0", "name": "net", "plugns": []}`,
			[]string{"plugins: no plugin is configured; add a list of plugins", `warning: plugns: libcni ignores this key; did you mean "plugins"?`}},
		{"several", list(`{"type": "bridgeveth", "vlan": 5000, "brigde": "br0", "isGatway": true, "mtu": 9, "ipam": {"type": "ipam-simple", "subnet": "10.1.0.7/16", "rangeStrat": ""}},
			{"type": "portmap", "masqAll": true}`), []string{
			`plugins[0] (bridgeveth): brigde: unknown key, with value "br0"; did you mean "bridge"?`,
			`plugins[0] (bridgeveth): isGatway: unknown key, with value true; did you mean "isGateway"?`,
			`plugins[0] (bridgeveth): mtu: 9 is not between 68 and 65535 bytes; leave it out for the MTU of the bridge, or write "auto" for the MTU of the uplink`,
			"plugins[0] (bridgeveth): vlan: 5000 is not between 1 and 4094; leave it out for no VLAN",
			`plugins[0] (bridgeveth): ipam.rangeStrat: unknown key, with value ""; did you mean "rangeStart"?`,
			"plugins[0] (bridgeveth): ipam.subnet: 10.1.0.7/16 has host bits set; write 10.1.0.0/16",
			"plugins[1] (portmap): masqAll: it is not supported, because bridgeveth keeps the client's address; leave it out",
		}},
		{"keys that need addresses", list(`{"type": "bridgeveth", "isGateway": true}`),
			[]string{`plugins[0] (bridgeveth): network net: isGateway: it needs addresses, and the network has none; set "ipam", or leave the key out`}},
		{"an MTU that IPv6 does not allow", list(`{"type": "bridgeveth", "mtu": 1000, "ipam": {"type": "ipam-simple", "subnet": "fd00::/64"}}`),
			[]string{"plugins[0] (bridgeveth): mtu: 1000 is too small for fd00::1; IPv6 needs 1280"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.conf)
			out, err := run(t, "check", path)
			if !errors.Is(err, cli.ErrUnhealthy) {
				t.Errorf("exit status: %v", err)
			}
			got := strings.Split(strings.ReplaceAll(strings.TrimSpace(out), path+": ", ""), "\n")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	_, err = write.WriteString(list(`{"type": "bridgeveth", "vlan": 7}`))
	if err := errors.Join(err, write.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, "check", fmt.Sprintf("/proc/self/fd/%d", read.Fd())); err != nil {
		t.Errorf("a pipe: %v: %s", err, out)
	}
	if _, err := run(t, "check", "/none"); err == nil || errors.Is(err, cli.ErrUnhealthy) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// TestCheckWarnings checks the warnings about keys without effect. They do not change the exit
// status.
func TestCheckWarnings(t *testing.T) {
	path := write(t, `{"cniVersion": "1.0.0", "name": "net", "Plugins": [], "plugins": [
		{"type": "bridge", "isGatway": true, "capabilities": {"portMapping": true, "aliases": true}, "ipam": {"type": "host-local", "gatway": "10.1.0.1", "ranges": [[{"subnet": "10.1.0.0/16", "gw": "10.1.0.1"}]]}, "dns": {"nameserver": []}, "vlan": 7, "vlanTrunk": [{"id": 8, "name": "a"}]},
		{"type": "portmap", "SNAT": true}, {"type": "bridgeveth", "ipam": {"type": "static"}, "bridge": "br0", "bridge": "br1"}, {"type": "tuning"}], "name": "net"}`)
	out, err := run(t, "check", path)
	if err != nil {
		t.Error(err)
	}
	var got []string
	for _, w := range regexp.MustCompile("(?m)warning: (.*)$").FindAllStringSubmatch(out, -1) {
		got = append(got, w[1])
	}
	want := []string{
		`Plugins: libcni ignores this key; did you mean "plugins"?`,
		"plugins[2].bridge: the object has this key more than once; only the last value has an effect",
		"name: the object has this key more than once; only the last value has an effect",
		`plugins[0] (bridge): isGatway: the plugin ignores this key; did you mean "isGateway"?`,
		`plugins[0] (bridge): dns.nameserver: the plugin ignores this key; did you mean "nameservers"?`,
		"plugins[0] (bridge): vlanTrunk[0].name: the plugin ignores this key",
		"plugins[0] (bridge): capabilities.aliases: bridge ignores this capability",
		`plugins[0] (bridge): capabilities.portMapping: bridge ignores this capability; did you mean "portMappings"?`,
		`plugins[0] (bridge): ipam (host-local): gatway: the plugin ignores this key; did you mean "gateway"?`,
		"plugins[0] (bridge): ipam (host-local): ranges[0][0].gw: the plugin ignores this key",
		"plugins[1] (portmap): SNAT: the plugin ignores this key",
		"plugins[2] (bridgeveth): ipam (static): not checked, because it is no plugin of bridgeveth",
		"plugins[3] (tuning): not checked, because it is no plugin of bridgeveth",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCheckEffective checks the values that the output shows.
func TestCheckEffective(t *testing.T) {
	path := write(t, `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridgeveth", "IsDefaultGateway": true, "forceAddress": true, "ingressPolicy": "isolated", "bridge": "",
		"ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/24", "static": ["10.1.0.8/29"]}}]}`)
	out, err := run(t, "check", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`bridge +cni0 \(default\) +name of the bridge`,
		`isGateway +true \(set by isDefaultGateway\)`,
		`isDefaultGateway +true  `,
		`gatewayConflict +"replace" \(set by forceAddress\)`,
		`macspoofchk +true \(set by ingressPolicy\)`,
		`ipspoofchk +true \(set by ingressPolicy\)`,
		`dataDir +/run/ipam-simple \(default\)`,
		`one address from 10.1.0.1-10.1.0.7, gateway 10.1.0.1; 10.1.0.16-10.1.0.254, gateway 10.1.0.1; 10.1.0.8-10.1.0.15, gateway 10.1.0.1, only on request`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("the output does not match %q:\n%s", want, out)
		}
	}
	out, err = run(t, "check", "-o", "json", path)
	if err != nil || !strings.Contains(out, `"value": "true",`) || !strings.Contains(out, `"by": "isDefaultGateway"`) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCheckAccepts checks that every configuration of conf/ and docs/, and configurations as other
// programs write them, have no mistakes.
func TestCheckAccepts(t *testing.T) {
	const root = "../../../../"
	var files []string
	for _, pattern := range []string{root + "conf/*.conflist", "testdata/*.conf*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	pages, err := filepath.Glob(root + "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?s)```json\n(.*?)```")
	for _, page := range append(pages, root+"README.md") {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range fence.FindAllStringSubmatch(string(content), -1) {
			if strings.Contains(block[1], `"plugins"`) {
				files = append(files, write(t, block[1]))
			}
		}
	}
	if len(files) < 13 { // 6 in conf/, 5 in testdata, 2 in pages
		t.Errorf("found only %d files", len(files))
	}
	for _, file := range files {
		if out, err := run(t, "check", file); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// FuzzCheck checks any text as a configuration.
func FuzzCheck(f *testing.F) {
	for _, text := range []string{"", "[]", `{"name": "n", "type": "bridgeveth", "ipam": {"type": "ipam-simple", "ranges": [[{"subnet": "10.1.0.0/31"}]]}}`,
		`{"name": "n", "plugins": [{"type": "bridge", "vlanTrunk": [7], "dns": 7, "capabilities": {"x": true}, "ipam": {"type": "host-local", "ranges": 7}}]}`} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "c.conflist")
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(strings.ToLower(string(text)), "resolvconf") {
			return // check would read the named file
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := check(path)
		if err != nil || len(r.Errors) > 0 && len(r.Plugins) > 0 {
			t.Errorf("%v: %+v", err, r)
		}
	})
}
