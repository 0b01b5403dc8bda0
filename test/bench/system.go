package main

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/libcni"
)

// Values in the configurations of all systems. Each system has its own node (a simulated host), so
// all systems can use the same values. Leases are on the node's tmpfs, so all systems use the same
// kind of file system.
const (
	networkName = "bench"
	bridgeName  = "bench0"
	subnet      = "10.88.0.0/16"
	subnet6     = "fd88::/64"
	leaseDir    = "/run/bench/leases"
)

// Keys of the systems whose results are compared.
const (
	keyFloor     = "floor"
	keyFloorDual = "floor-dual"
	keyFull      = "bridgeveth-full"
	keyMasq      = "bridgeveth-masq"
	keySysctl    = "bridgeveth-sysctl"
	keyDual      = "bridgeveth-dual"
	keyPlain     = "reference"
	keyPlainDual = "reference-dual"
	keyChain     = "reference-chain"
)

// system is one way to attach a container to a bridge: one or several plugins with their
// configuration.
type system struct {
	key     string // for -systems and the tables
	title   string
	ours    bool
	builtIn bool     // this program itself does ADD and DEL
	plugins []plugin // in the order of the plugin list; those of the floor are for CHECK only
	opens   bool     // bridged packets pass although the policy of FORWARD is DROP
}

// plugin is the configuration of a plugin, as a JSON object.
type plugin map[string]any

// systems are all systems that can be measured.
var systems = []system{
	{
		key: keyFloor, title: "the kernel's work alone, and one start of a program", builtIn: true, opens: true,
		plugins: []plugin{{"type": startProgram}},
	}, {
		key: keyFloorDual, title: "the same with IPv6 besides", builtIn: true, opens: true,
		plugins: []plugin{{"type": startProgram}},
	}, {
		key: "bridgeveth", title: "bridgeveth + ipam-simple", ours: true,
		plugins: []plugin{ours(plugin{"forward": "none"})},
	}, {
		key: keyFull, title: "the same with ipMasq, the FORWARD fix and one host port", ours: true, opens: true,
		plugins: []plugin{ours(full)},
	}, {
		key: keyMasq, title: "the same without host ports", ours: true, opens: true,
		plugins: []plugin{ours(plugin{"forward": "iptables", "ipMasq": true})},
	}, {
		key: keySysctl, title: "bridgeveth-full, with bridged packets past iptables by the sysctl", ours: true, opens: true,
		plugins: []plugin{ours(plugin{"forward": "sysctl", "ipMasq": true, "capabilities": map[string]bool{"portMappings": true}})},
	}, {
		key: keyDual, title: "bridgeveth-full with IPv6 besides", ours: true, opens: true,
		plugins: []plugin{dualStack(ours(full))},
	}, {
		key: keyPlain, title: "bridge + host-local",
		plugins: []plugin{reference(plugin{})},
	}, {
		key: keyPlainDual, title: "the same with IPv6 besides",
		plugins: []plugin{dualStack(reference(plugin{}))},
	}, {
		key: keyChain, title: "bridge with ipMasq + host-local, portmap (one host port) and firewall", opens: true,
		plugins: []plugin{
			reference(plugin{"ipMasq": true}),
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
			{"type": "firewall", "backend": "iptables"},
		},
	},
}

// full has the configuration keys that containers need on a host whose FORWARD chain drops packets.
var full = plugin{"forward": "iptables", "ipMasq": true, "capabilities": map[string]bool{"portMappings": true}}

// dualStack adds an IPv6 range to a configuration that has an IPv4 range.
func dualStack(p plugin) plugin {
	ipam := p["ipam"].(map[string]any)
	delete(ipam, "subnet")
	ipam["ranges"] = [][]map[string]string{{{"subnet": subnet}}, {{"subnet": subnet6}}}
	return p
}

// ours returns a configuration of bridgeveth. extra contains additional keys.
func ours(extra plugin) plugin { return gateway("bridgeveth", "ipam-simple", extra) }

// reference returns a configuration of the reference plugin bridge. extra contains additional keys.
func reference(extra plugin) plugin { return gateway("bridge", "host-local", extra) }

// gateway returns a configuration of bridgeveth or of the reference plugin bridge. The host is the
// default gateway of the containers. extra contains additional keys.
func gateway(name, ipam string, extra plugin) plugin {
	p := plugin{
		"type": name, "bridge": bridgeName, "isGateway": true, "isDefaultGateway": true,
		"ipam": map[string]any{"type": ipam, "subnet": subnet, "dataDir": leaseDir},
	}
	for key, value := range extra {
		p[key] = value
	}
	return p
}

// config returns the system's configuration for libcni. network is the name of the CNI network.
func (s *system) config(network string) (*libcni.NetworkConfigList, error) {
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": network, "plugins": s.plugins,
	})
	if err != nil {
		return nil, fmt.Errorf("write configuration of %s: %w", s.key, err)
	}
	list, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("load configuration of %s: %w", s.key, err)
	}
	return list, nil
}

// systemKeys returns the keys of all systems.
func systemKeys() []string {
	var keys []string
	for i := range systems {
		keys = append(keys, systems[i].key)
	}
	return keys
}

// findSystem returns the system with this key. The system must exist.
func findSystem(key string) *system {
	for i := range systems {
		if systems[i].key == key {
			return &systems[i]
		}
	}
	panic("no system " + key)
}
