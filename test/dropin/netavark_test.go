package dropin

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestNetavark runs podman 5 beside bridgeveth. The network backend of podman 5 is netavark, which
// has its own table in nftables. netavark's rules cannot accept a packet that FORWARD drops, but
// bridgeveth's containers must work in both cases.
func TestNetavark(t *testing.T) {
	for policy, podmanAnswers := range map[string]string{"ACCEPT": "hello\n", "DROP": ""} {
		t.Run(policy, func(t *testing.T) {
			n := newNode(t)
			setuptest.Run(t, "iptables-nft", "-P", "FORWARD", policy)
			program, err := exec.LookPath("podman")
			if _, missing := os.Stat("/usr/lib/podman/netavark"); err != nil || missing != nil {
				t.Skip("LISTED SKIP: no podman with netavark; run make test-distro")
			}
			p := startPodman(t, program, "/usr/bin/busybox", fmt.Sprintf(podmanConf, "", "network_backend = \"netavark\"\nfirewall_driver = \"nftables\"\n"))
			outside := n.outside()
			p.run("network", "create", "--disable-dns", "--subnet", "10.89.5.0/24", "one")
			theirs := p.up("theirs", "-p", "8081:80")
			// podman network reload makes podman's links again, so only the rules are compared.
			rules := func() string { return setuptest.Run(t, "nft", "-s", "list", "ruleset") }
			before := rules()

			c1, c2 := setuptest.Container(t, "c1"), setuptest.Container(t, "c2")
			conf := list("1.0.0", object{
				"type": "bridgeveth", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "capabilities": object{"portMappings": true},
				"ipam": object{"type": "ipam-simple", "ranges": [][]object{{{"subnet": "10.88.0.0/24"}}}},
			})
			first := attach(t, reference, "c1", conf, portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"})
			second := attach(t, reference, "c2", conf)
			first.mustAdd()
			second.mustAdd()
			serve(t, c1, 80)
			passes := func(when string) {
				t.Helper()
				for _, address := range []string{"10.88.0.2", "192.0.2.2"} {
					if !setuptest.Ping(t, c2, address) {
						t.Errorf("%s: %s does not answer", when, address)
					}
				}
				if ask(t, outside, "192.0.2.1:8080") == "" {
					t.Errorf("%s: the host port does not answer", when)
				}
				for _, address := range []string{theirs + ":80", "192.0.2.1:8081"} {
					if got := answers(t, c2, address); got != "hello\n" {
						t.Errorf("%s: %s answers %q to bridgeveth's container", when, address, got)
					}
				}
				if got := answers(t, outside, "192.0.2.1:8081"); got != podmanAnswers {
					t.Errorf("%s: podman's host port answers %q from outside, want %q", when, got, podmanAnswers)
				}
				must(t, first.check())
			}
			passes("after ADD")
			p.run("network", "reload", "-a")
			passes("after podman network reload")
			must(t, first.del())
			must(t, second.del())
			if diff := cmp.Diff(before, rules()); diff != "" {
				t.Errorf("DEL left rules (-before +after):\n%s", diff)
			}
		})
	}
}
