package dropin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

var (
	hostLocal = object{"type": "host-local", "ranges": [][]object{{{"subnet": "10.88.0.0/24"}}}, "routes": []object{{"dst": "0.0.0.0/0"}}}
	twice     = object{"type": "host-local", "ranges": [][]object{{{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.50"}}, {{"subnet": "fd88::/64"}}}}
	bridge    = object{"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": hostLocal}
	portmap   = object{"type": "portmap", "capabilities": object{"portMappings": true}}
	firewall  = object{"type": "firewall"}
)

// list returns a network configuration with the given plugins.
func list(version string, plugins ...object) object {
	return object{"cniVersion": version, "name": "net", "plugins": plugins}
}

// TestResults checks that our plugins return the same results as the reference plugins.
func TestResults(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name     string
		plugins  []object
		prepared func(*attachment)
	}{
		{"as podman and nerdctl write it", []object{bridge, portmap, firewall}, nil},
		{"both families, default gateway", []object{bridge.with(object{"isDefaultGateway": true, "ipam": twice}), portmap, firewall}, nil},
		{"layer 2 only", []object{{"type": "bridge", "bridge": "br0"}, portmap, firewall}, nil},
		{"no gateway", []object{bridge.with(object{"isGateway": false, "ipMasq": false}), portmap, firewall}, nil},
		{"unknown keys", []object{bridge.with(object{"_note": "mine", "ipam": hostLocal.with(object{"note": 1})}), portmap.with(object{"note": 1}), firewall.with(object{"note": 1})}, nil},
		{"DNS of the network", []object{bridge.with(object{"dns": object{"nameservers": []string{"10.88.0.1"}, "search": []string{"example.org"}}}), portmap}, nil},
		{"DNS of the host", []object{bridge.with(object{"ipam": hostLocal.with(object{"resolvConf": "/etc/hosts"})}), portmap}, nil},
		{"routes", []object{bridge.with(object{"ipam": hostLocal.with(object{"routes": []object{{"dst": "192.0.2.0/24", "gw": "10.88.0.7"}, {"dst": "198.51.100.0/24"}}})})}, nil},
		{"address and MAC", []object{bridge.with(object{"capabilities": object{"ips": true, "mac": true}}), portmap, firewall}, func(a *attachment) {
			a.runtime.CapabilityArgs["ips"] = []string{"10.88.0.77/24"}
			a.runtime.CapabilityArgs["mac"] = "02:00:00:00:00:77"
		}},
		{"host port", []object{bridge, portmap, firewall, {"type": "tuning"}}, func(a *attachment) {
			a.runtime.CapabilityArgs["portMappings"] = []portMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
		}},
	} {
		for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} { // the versions in which a configuration may be a list of plugins
			if i > 2 && version != "1.1.0" {
				continue // the result is the same in each version
			}
			plugins := tt.plugins
			if version == "0.3.1" { // the reference plugin firewall does not support this version
				plugins = plugins[:min(2, len(plugins))]
			}
			t.Run(fmt.Sprintf("%s/%s", tt.name, version), func(t *testing.T) {
				t.Parallel()
				results := map[string]object{}
				for name, dir := range map[string]string{"reference": reference, "ours": ours} {
					t.Run(name, func(t *testing.T) {
						newNode(t)
						setuptest.Container(t, "c1")
						a := attach(t, dir, "c1", list(version, plugins...))
						if tt.prepared != nil {
							tt.prepared(a)
						}
						results[name] = a.mustAdd()
						if version != "0.3.1" && (name == "ours" || !strings.Contains(tt.name, "layer 2")) { // where CHECK of the reference plugins succeeds
							must(t, a.check())
						}
						must(t, a.del())
					})
				}
				want, got := comparable(results["reference"]), comparable(results["ours"])
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("results (-reference +ours):\n%s", diff)
				}
			})
		}
	}
}

// comparable removes the values from a result that are different in each run, such as names and MAC
// addresses. It also removes the MTU, because the reference plugin bridge does not return it.
func comparable(result object) object {
	interfaces, _ := result["interfaces"].([]any)
	for _, each := range interfaces {
		i := each.(map[string]any)
		if name := i["name"].(string); strings.HasPrefix(name, "veth") {
			i["name"] = "veth…"
		}
		if mac, _ := i["mac"].(string); !strings.HasPrefix(mac, "02:00:00:00:00:77") {
			i["mac"] = len(mac)
		}
		delete(i, "mtu")
	}
	return result
}
