package dropin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

var web = portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}

// elements returns the number of elements that belong to a container in the nftables map of host
// ports.
func elements(t testing.TB, container string) int {
	t.Helper()
	return strings.Count(setuptest.Run(t, "nft", "list", "map", "ip", "bridgeveth", "ports"), "/"+container+"/eth0\"")
}

// TestPortmap checks host ports of the plugin portmap, which runs after bridge. It covers CHECK,
// and DEL and GC in each form in which runtimes call them.
func TestPortmap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		del  func(*attachment) error
	}{
		{"without a namespace", (*attachment).del},
		{"without a result", func(a *attachment) error {
			setuptest.Run(t, "rm", "-r", "/run/cni-cache")
			return a.del()
		}},
		{"without its ports", func(a *attachment) error {
			a.runtime.CapabilityArgs = nil
			return a.del()
		}},
		{"by GC", func(a *attachment) error {
			for _, name := range []string{"portmap", "bridge"} {
				conf := bridge.with(object{"type": name, "cni.dev/valid-attachments": []object{{"containerID": "c2", "ifname": "eth0"}}})
				if _, err := call(a.t, filepath.Join(ours, name), "GC", "c1", conf); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			outside := n.outside()
			c1 := setuptest.Container(t, "c1")
			setuptest.Container(t, "c2")
			serve(t, c1, 80)
			network := list("1.1.0", bridge, portmap)
			other := attach(t, ours, "c2", network, portMapping{HostPort: 9090, ContainerPort: 80, Protocol: "udp"})
			other.mustAdd()
			before := setuptest.Dump(t)
			a := attach(t, ours, "c1", network, web)
			a.mustAdd()
			must(t, a.check())
			for from, ns := range map[string]*setup.Namespace{"outside": outside, "the host": n.Namespace, "itself": c1} {
				if ask(t, ns, "192.0.2.1:8080") == "" {
					t.Errorf("no answer to %s", from)
				}
			}
			if ask(t, n.Namespace, "127.0.0.1:8080") == "" {
				t.Error("no answer to localhost")
			}
			setuptest.Run(t, "nft", "delete", "element", "ip", "bridgeveth", "ports", "{ tcp . 8080 }")
			refused(t, a.check(), 103, "host port tcp *:8080 to the container")
			must(t, a.del())
			a.mustAdd()
			setuptest.Run(t, "iptables-nft", "-t", "nat", "-D", "CNI-HOSTPORT-DNAT", "2") // nerdctl deletes this rule
			refused(t, a.check(), 103, "host ports in chain CNI-HOSTPORT-DNAT")
			must(t, a.del())
			a.mustAdd()
			must(t, tt.del(a))
			setuptest.Same(t, before, "it left traces")
			must(t, other.del())
		})
	}
}

// TestPortmapTaken checks portmap's error about a host port that another container already has.
func TestPortmapTaken(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	setuptest.Container(t, "c2")
	network := list("1.0.0", bridge, portmap)
	first, second := attach(t, ours, "c1", network, web), attach(t, ours, "c2", network, web)
	first.mustAdd()
	before := setuptest.Dump(t)
	_, err := second.add()
	refused(t, err, 101, "host port tcp *:8080 is taken by container c1, interface eth0, of network net")
	must(t, second.del()) // runtimes call DEL after a failed ADD
	setuptest.Same(t, before, "it left traces")
}

// TestPortmapAfterFlush flushes all rules while a container has a host port. It checks that another
// container does not get the host port, and that the host port works again after the other ADD.
func TestPortmapAfterFlush(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	outside := n.outside()
	must(t, os.Symlink("/run/cni-cache", "/var/lib/cni")) // the plugin reads libcni's default folder
	c1 := setuptest.Container(t, "c1")
	setuptest.Container(t, "c2")
	serve(t, c1, 80)
	network := list("1.1.0", bridge, portmap)
	first, second := attach(t, ours, "c1", network, web), attach(t, ours, "c2", network, web)
	first.mustAdd()
	setuptest.Run(t, "nft", "flush", "ruleset")
	_, err := second.add()
	refused(t, err, 101, "host port tcp *:8080 is taken by container c1, interface eth0, of network net")
	if ask(t, outside, "192.0.2.1:8080") == "" {
		t.Error("the host port does not work after another ADD")
	}
	must(t, second.del())
	must(t, first.del())
}

// TestPortmapWithoutAddress checks portmap's error about a host port if the container has no
// address of the needed IP family.
func TestPortmapWithoutAddress(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	for want, mapping := range map[string]portMapping{
		"host port tcp *:8080 needs an address in the container":              web,
		"host port tcp 192.0.2.1:8080 needs an IPv4 address in the container": {HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "192.0.2.1"},
	} {
		result, err := call(t, filepath.Join(ours, "bridge"), "ADD", "c1", object{"bridge": "br0"})
		must(t, err)
		before := setuptest.Dump(t)
		conf := object{"runtimeConfig": object{"portMappings": []portMapping{mapping}}, "prevResult": result}
		_, err = call(t, filepath.Join(ours, "portmap"), "ADD", "c1", conf)
		refused(t, err, 7, want)
		setuptest.Same(t, before, "a refused ADD left traces")
		for _, name := range []string{"portmap", "bridge"} {
			_, err := call(t, filepath.Join(ours, name), "DEL", "c1", object{"bridge": "br0"})
			must(t, err)
		}
	}
}

// TestPortmapAfterBridge checks host ports that the runtime passes to both bridge and portmap. The
// ports must exist only once.
func TestPortmapAfterBridge(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	before := setuptest.Dump(t)
	a := attach(t, ours, "c1", list("1.0.0", bridge.with(object{"capabilities": object{"portMappings": true}}), portmap), web)
	a.mustAdd()
	if got := elements(t, "c1"); got != 1 {
		t.Errorf("%d elements, want 1", got)
	}
	must(t, a.check())
	must(t, a.del())
	setuptest.Same(t, before, "DEL left traces")
}

// TestNoHostPorts checks portmap without host ports. portmap must print the result of the preceding
// plugin unchanged, even if that plugin is not ours.
func TestNoHostPorts(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	given := object{"cniVersion": "1.1.0", "interfaces": []any{map[string]any{"name": "eth0", "sandbox": "/run/netns/c1"}}}
	got, err := call(t, filepath.Join(ours, "portmap"), "ADD", "c1", object{"prevResult": given})
	must(t, err)
	want, _ := json.Marshal(given)
	if text, _ := json.Marshal(got); string(text) != string(want) {
		t.Errorf("got %s, want %s", text, want)
	}
}

// TestKeysRefused checks that ADD and STATUS of portmap and firewall return an error that names the
// unsupported key, and that they accept the other keys.
func TestKeysRefused(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	published := object{"portMappings": []portMapping{web}}
	for _, tt := range []struct {
		plugin string
		conf   object
		want   string // part of the error, "" for success
	}{
		{"portmap", object{"backend": "iptables", "snat": false, "markMasqBit": 14, "conditionsV4": []string{}}, ""},
		{"portmap", object{"backend": "nftables", "snat": true, "externalSetMarkChain": "KUBE-MARK-MASQ"}, ""},
		{"portmap", object{"backend": "ebtables"}, `backend: "ebtables" is none of iptables, nftables`},
		{"portmap", object{"markMasqBit": 32}, "markMasqBit: 32 is not between 0 and 31"},
		{"portmap", object{"markMasqBit": 3, "externalSetMarkChain": "X"}, "markMasqBit: it is not allowed with externalSetMarkChain"},
		{"portmap", object{"masqAll": true}, "masqAll: it is not supported"},
		{"portmap", object{"conditionsV4": []string{"!", "-d", "192.0.2.0/24"}}, `conditionsV4: "! -d 192.0.2.0/24": it is not supported`},
		{"portmap", object{"conditionsV6": []string{"-i", "eth0"}}, `conditionsV6: "-i eth0": it is not supported`},
		{"portmap", object{"runtimeConfig": object{"portMappings": []portMapping{{HostPort: 70000, ContainerPort: 80}}}}, "runtimeConfig.portMappings[0].hostPort: 70000 is no port"},
		{"firewall", object{"backend": "", "iptablesAdminChainName": "CNI-ADMIN", "firewalldZone": "trusted", "ingressPolicy": "open"}, ""},
		{"firewall", object{"backend": "ebtables"}, ""},                              // the reference plugin also accepts every value
		{"firewall", object{"backend": "iptables", "firewalldZone": "internal"}, ""}, // the backend iptables does not use firewalldZone
		{"firewall", object{"iptablesAdminChainName": "MINE"}, `iptablesAdminChainName: "MINE": the administrator's chain is BRIDGEVETH-ADMIN`},
		{"firewall", object{"backend": "firewalld", "firewalldZone": "internal"}, `firewalldZone: "internal": bridgeveth adds the bridge to the zone bridgeveth`},
		{"firewall", object{"ingressPolicy": "closed"}, `ingressPolicy: "closed" is none of open, same-bridge, isolated`},
	} {
		result, err := call(t, filepath.Join(ours, "bridge"), "ADD", "c1", bridge)
		must(t, err)
		before := setuptest.Dump(t)
		conf := object{"runtimeConfig": published, "prevResult": result}.with(tt.conf)
		_, err = call(t, filepath.Join(ours, tt.plugin), "ADD", "c1", conf)
		_, status := call(t, filepath.Join(ours, tt.plugin), "STATUS", "c1", conf)
		if tt.want == "" {
			must(t, err)
			must(t, status)
		} else {
			refused(t, err, 7, tt.want)
			refused(t, status, 7, tt.want)
			setuptest.Same(t, before, "a refused ADD left traces")
		}
		for _, name := range []string{tt.plugin, "bridge"} { // DEL accepts these keys
			_, err := call(t, filepath.Join(ours, name), "DEL", "c1", bridge.with(conf).with(object{"type": name}))
			must(t, err)
		}
	}
}

// TestPortmapAtOnce attaches and detaches containers with host ports in parallel. It checks that
// their shared rules exist as long as one of the containers is attached, and that the DEL of the
// last container removes them.
func TestPortmapAtOnce(t *testing.T) {
	t.Parallel()
	newNode(t)
	for i := range 6 {
		setuptest.Container(t, fmt.Sprintf("c%d", i))
	}
	b, err := json.Marshal(list("1.1.0", bridge, portmap, firewall.with(object{"ingressPolicy": "same-bridge"})))
	must(t, err)
	must(t, os.Mkdir("/run/net.d", 0o755))
	must(t, os.WriteFile("/run/net.d/10-net.conflist", b, 0o600))
	before := setuptest.Dump(t)
	const each = `export NETCONFPATH=/run/net.d CNI_PATH=%[1]s CAP_ARGS='{"portMappings": [{"hostPort": 808%[2]d, "containerPort": 80, "protocol": "tcp"}]}'
		for i in 1 2 3 4 5 6; do
			for verb in add check del; do %[3]s/cnitool $verb net /run/netns/c%[2]d || exit 1; done
		done`
	var running []*exec.Cmd
	outputs := make([]bytes.Buffer, 6)
	for i := range outputs {
		cmd := exec.Command("sh", "-c", fmt.Sprintf(each, ours, i, reference))
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		must(t, cmd.Start())
		running = append(running, cmd)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("container %d: %v\n%s", i, err, outputs[i].String())
		}
	}
	setuptest.Same(t, before, "something is left")
}
