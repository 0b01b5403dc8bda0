package main

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/libcni"
)

// What every system is configured with. Each has a node of its own, so nothing
// collides. Leases go where the node has a tmpfs: the same kind of file system
// for all.
const (
	networkName = "bench"
	bridgeName  = "bench0"
	subnet      = "10.88.0.0/16"
	subnet6     = "fd88::/64"
	leaseDir    = "/run/bench/leases"
)

// Keys of the systems that ratios are taken of.
const (
	keyFloor     = "floor"
	keyFloorDual = "floor-dual"
	keyFull      = "bridgeveth-full"
	keySysctl    = "bridgeveth-sysctl"
	keyDual      = "bridgeveth-dual"
	keyPlain     = "reference"
	keyPlainDual = "reference-dual"
	keyChain     = "reference-chain"
)

// system is one way to attach a container to a bridge.
type system struct {
	key     string // for -systems and the tables
	title   string
	ours    bool
	plugins []plugin // in the order of the chain; none is a floor
	opens   bool     // lets bridged packets through when FORWARD's policy is DROP
}

// plugin is a plugin's configuration: a JSON object.
type plugin map[string]any

// systems is all that can be measured, ours first.
var systems = []system{
	{
		key: keyFloor, title: "the kernel's work alone, and one start of a program", opens: true,
	}, {
		key: keyFloorDual, title: "the same with IPv6 besides", opens: true,
	}, {
		key: "bridgeveth", title: "bridgeveth + ipam-simple", ours: true,
		plugins: []plugin{ours(plugin{"forward": "none"})},
	}, {
		key: keyFull, title: "the same with ipMasq, the FORWARD fix and one host port", ours: true, opens: true,
		plugins: []plugin{ours(full)},
	}, {
		key: keySysctl, title: "the same, with bridged packets past iptables by the sysctl", ours: true, opens: true,
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

// full is what containers need on a host where FORWARD denies.
var full = plugin{"forward": "iptables", "ipMasq": true, "capabilities": map[string]bool{"portMappings": true}}

// dualStack gives a configuration a range of IPv6 besides that of IPv4.
func dualStack(p plugin) plugin {
	ipam := p["ipam"].(map[string]any)
	delete(ipam, "subnet")
	ipam["ranges"] = [][]map[string]string{{{"subnet": subnet}}, {{"subnet": subnet6}}}
	return p
}

// ours returns a configuration of this project's plugin, with what extra adds.
func ours(extra plugin) plugin { return gateway("bridgeveth", "ipam-simple", extra) }

// reference returns a configuration of the reference plugin.
func reference(extra plugin) plugin { return gateway("bridge", "host-local", extra) }

// gateway returns what ours and the reference are both given: a bridge that is
// the containers' default gateway. host-local takes its subnet in ranges only
// where there are several, so subnet serves both.
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

// config returns the system's network configuration, as libcni wants it.
func (s *system) config() (*libcni.NetworkConfigList, error) {
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": networkName, "plugins": s.plugins,
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

// systemKeys lists the keys of all systems.
func systemKeys() []string {
	var keys []string
	for i := range systems {
		keys = append(keys, systems[i].key)
	}
	return keys
}

// findSystem returns the system with that key, which must exist.
func findSystem(key string) *system {
	for i := range systems {
		if systems[i].key == key {
			return &systems[i]
		}
	}
	panic("no system " + key)
}
