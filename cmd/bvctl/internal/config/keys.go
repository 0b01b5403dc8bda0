package config

import (
	"cmp"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// key describes one key of a configuration. A test compares the keys with the structs that the
// plugins decode, and the defaults with docs/configuration.md. The JSON schema for editors comes
// from this table.
type key struct {
	Name    string   `json:"key"`
	Type    kind     `json:"type"`
	Values  []string `json:"values,omitempty"` // the allowed texts, if not every text is allowed
	Default string   `json:"default"`
	Meaning string   `json:"meaning"`

	min, max int // of a number; if max is 0, every number is allowed
	// implied returns the value to which another key sets this key, and the name of that key. The
	// name is empty if there is no such key.
	implied func(set settings) (value, by string)
}

// kind is the type of a value.
type kind string

const (
	boolean       kind = "true or false"
	text          kind = "text"
	texts         kind = "list of texts"
	number        kind = "number"
	numberOrAuto  kind = `number or "auto"`
	booleanOrAuto kind = `true, false or "auto"`
	object        kind = "object"
	textsByName   kind = "texts by name"
	dnsObject     kind = "dns"
	trunkList     kind = "list of VLANs"
	rangeSets     kind = "list of lists of ranges"
	routeList     kind = "list of routes"
	poolObject    kind = "pool"
	etcdObject    kind = "etcd"
)

// ofRuntimes are the keys that runtimes and libcni add to the configuration of each plugin, and the
// keys that every plugin has.
var ofRuntimes = []string{"cniVersion", "cniVersions", "name", "type", "capabilities", "ipam", "dns", "prevResult", "args", "runtimeConfig",
	"disableCheck", "disableGC", "loadOnlyInlinedPlugins"}

// ofLists are the keys of a plugin list that libcni reads. Editors read "$schema".
var ofLists = []string{"cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins", "$schema"}

// capabilities are the capabilities that each plugin reads.
var capabilities = map[string][]string{
	plugin.Bridgeveth: {"portMappings", "bandwidth", "mac", "ips", "ipRanges"},
	plugin.Bridge:     {"portMappings", "bandwidth", "mac", "ips", "ipRanges"},
	plugin.PortMap:    {"portMappings"},
	plugin.Firewall:   {},
}

// keysOf are the keys of each plugin.
var keysOf = map[string][]key{
	plugin.Bridgeveth: networkKeys, plugin.Bridge: networkKeys,
	plugin.IPAMSimple: ipamKeys, plugin.HostLocal: ipamKeys,
	plugin.PortMap: portMapKeys, plugin.Firewall: firewallKeys,
}

var policies = []string{"open", "same-bridge", "isolated"}

// networkKeys are the keys of bridgeveth.
var networkKeys = []key{
	{Name: "bridge", Type: text, Default: "cni0", Meaning: "name of the bridge"},
	{Name: "isGateway", Type: boolean, Default: "false", Meaning: "the bridge gets a gateway address, and the host forwards packets",
		implied: func(s settings) (string, string) { return "true", s.isTrue("isDefaultGateway") }},
	{Name: "isDefaultGateway", Type: boolean, Default: "false", Meaning: "sets isGateway; containers get a default route to the gateway"},
	{Name: "gatewayConflict", Type: text, Values: []string{"error", "replace", "add"}, Default: "error", Meaning: "what ADD does if the bridge has an address that conflicts with the gateway",
		implied: func(s settings) (string, string) { return `"replace"`, s.isTrue("forceAddress") }},
	{Name: "forceAddress", Type: boolean, Default: "false", Meaning: `means "gatewayConflict": "replace"`},
	{Name: "ipMasq", Type: boolean, Default: "false", Meaning: "packets from containers to other networks are masqueraded"},
	{Name: "ipMasqBackend", Type: text, Values: []string{"iptables", "nftables"}, Meaning: "no effect: the rules are always in nftables"},
	{Name: "masqExclude", Type: texts, Default: "none", Meaning: "destination subnets to which packets are not masqueraded"},
	{Name: "mtu", Type: numberOrAuto, min: 68, max: 65535, Default: "the MTU of the bridge; 1500 if ADD creates the bridge", Meaning: "MTU of the veth pair in bytes"},
	{Name: "hairpinMode", Type: boolean, Default: "false", Meaning: "a container reaches its own host ports"},
	{Name: "promiscMode", Type: boolean, Default: "false", Meaning: "the bridge receives all frames"},
	{Name: "portIsolation", Type: boolean, Default: "false", Meaning: "the bridge forwards no frames between containers with this key"},
	{Name: "vlan", Type: number, max: 4094, Default: "0", Meaning: "VLAN of the container; 0 means none"},
	{Name: "vlanTrunk", Type: trunkList, Default: "none", Meaning: "VLANs whose frames the container sends and receives with a tag"},
	{Name: "preserveDefaultVlan", Type: boolean, Default: "false", Meaning: "with VLANs, the container also stays in the default VLAN"},
	{Name: "ingressPolicy", Type: text, Values: policies, Default: "open", Meaning: "who may open connections to the containers"},
	{Name: "macspoofchk", Type: boolean, Default: "false; with isolated see Ingress policy", Meaning: "a container may send only from its own MAC address",
		implied: func(s settings) (string, string) {
			return "true", cmp.Or(s.isTrue("ipspoofchk"), s.isolates("macspoofchk"))
		}},
	{Name: "ipspoofchk", Type: boolean, Default: "false; with isolated see Ingress policy", Meaning: "sets macspoofchk; a container may use only its own IP addresses as source",
		implied: func(s settings) (string, string) {
			if ipam := readSettings(s["ipam"]).get("type"); ipam == "" || ipam == `"dhcp"` || s.get("macspoofchk") == "false" {
				return "", ""
			}
			return "true", s.isolates("ipspoofchk")
		}},
	{Name: "enabledad", Type: boolean, Default: "false", Meaning: "the kernel checks the container's IPv6 addresses for duplicates"},
	{Name: "disableContainerInterface", Type: boolean, Default: "false", Meaning: "the container's interface stays down"},
	{Name: "sysctl", Type: textsByName, Default: "none", Meaning: "sysctls of the container"},
	{Name: "forward", Type: text, Values: []string{"auto", "iptables", "firewalld", "sysctl", "none"}, Default: "auto", Meaning: "how packets get through a FORWARD chain that would drop them"},
	{Name: "forwardChains", Type: texts, Default: "none", Meaning: "your own nf_tables chains that must accept the packets of the bridge"},
	{Name: "forwardMark", Type: text, Default: "none", Meaning: "bits that are set in the mark of the bridge's packets"},
	{Name: "inbound", Type: text, Values: []string{"open", "established"}, Default: "open", Meaning: "which connections other hosts may open to the containers"},
	{Name: "fastPath", Type: booleanOrAuto, Default: "false", Meaning: "packets of established connections skip the FORWARD chains"},
	{Name: "dns", Type: dnsObject, Default: "the value of the IPAM plugin", Meaning: "name servers in the result of ADD"},
	{Name: "ipam", Type: object, Default: "none", Meaning: "the IPAM plugin; without it the network is layer 2 only"},
}

// rangeKeys are the keys of one range.
var rangeKeys = []key{
	{Name: "subnet", Type: text, Default: "required", Meaning: "subnet of the range"},
	{Name: "rangeStart", Type: text, Default: "the first host address, such as 10.1.0.1", Meaning: "first address to lease"},
	{Name: "rangeEnd", Type: text, Default: "the last address; for IPv4 the address before broadcast", Meaning: "last address to lease"},
	{Name: "gateway", Type: text, Default: "the first host address, such as 10.1.0.1", Meaning: "gateway in the result; never leased"},
	{Name: "exclude", Type: texts, Default: "none", Meaning: "addresses that are never leased"},
	{Name: "static", Type: texts, Default: "none", Meaning: "addresses that are leased only on request"},
}

// ipamKeys are the keys of ipam-simple, below "ipam".
var ipamKeys = append([]key{
	{Name: "type", Type: text, Meaning: "name of the IPAM plugin"},
	{Name: "ranges", Type: rangeSets, Meaning: "a container gets one address from each set of ranges"},
	{Name: "routes", Type: routeList, Default: "none", Meaning: "routes for the container"},
	{Name: "resolvConf", Type: text, Default: "none", Meaning: "file whose contents become dns of the result"},
	{Name: "dataDir", Type: text, Default: "/run/ipam-simple", Meaning: "folder of the leases"},
	{Name: "sticky", Type: text, Default: "off", Meaning: "how long an address is kept for a pod that has ended"},
	{Name: "stickyDir", Type: text, Default: "/var/lib/ipam-simple", Meaning: "folder of the sticky addresses"},
	{Name: "readyWhenFull", Type: boolean, Default: "false", Meaning: "STATUS succeeds even if no address is left"},
	{Name: "pool", Type: poolObject, Default: "none", Meaning: "hosts share the addresses of the ranges; etcd stores who owns which block"},
	{Name: "importFrom", Type: text, Default: "/var/lib/cni/networks", Meaning: "dataDir of host-local, whose reservations are taken over"},
}, rangeKeys...)

// poolKeys are the keys below "ipam.pool".
var poolKeys = []key{
	{Name: "etcd", Type: etcdObject, Default: "required", Meaning: "how to reach etcd"},
	{Name: "block", Type: number, max: 32, Default: "26", Meaning: "prefix length of an IPv4 block; the same on all hosts"},
	{Name: "block6", Type: number, max: 128, Default: "122", Meaning: "prefix length of an IPv6 block; the same on all hosts"},
	{Name: "spare", Type: number, min: 1, max: 64, Default: "1", Meaning: "number of blocks without a lease that a host keeps in stock"},
}

// etcdKeys are the keys below "ipam.pool.etcd".
var etcdKeys = []key{
	{Name: "endpoints", Type: texts, Default: "required", Meaning: "URLs of the members of etcd"},
	{Name: "prefix", Type: text, Default: "/bridgeveth", Meaning: "beginning of all keys in etcd"},
	{Name: "caFile", Type: text, Default: "the certificates of the system", Meaning: "file with the certificates that sign those of etcd"},
	{Name: "certFile", Type: text, Default: "none", Meaning: "file with the certificate of this host"},
	{Name: "keyFile", Type: text, Default: "none", Meaning: "file with the private key of certFile"},
	{Name: "username", Type: text, Default: "none", Meaning: "user of etcd"},
	{Name: "passwordFile", Type: text, Default: "none", Meaning: "file with the password of username"},
}

// routeKeys are the keys of one route below "ipam.routes".
var routeKeys = []key{
	{Name: "dst", Type: text, Default: "required", Meaning: "destination subnet"},
	{Name: "gw", Type: text, Default: "the gateway of the range", Meaning: "gateway of the route"},
	{Name: "mtu", Type: number, Default: "none", Meaning: "MTU of the route in bytes"},
	{Name: "advmss", Type: number, Default: "none", Meaning: "TCP segment size to advertise"},
	{Name: "priority", Type: number, Default: "none", Meaning: "priority of the route; the lowest wins"},
	{Name: "table", Type: number, Default: "main", Meaning: "number of the routing table"},
	{Name: "scope", Type: number, Default: "global", Meaning: "number of the scope"},
}

// trunkKeys are the keys of one entry of "vlanTrunk".
var trunkKeys = []key{
	{Name: "id", Type: number, min: 1, max: 4094, Meaning: "one VLAN"},
	{Name: "minID", Type: number, min: 1, max: 4094, Meaning: "first VLAN of a range"},
	{Name: "maxID", Type: number, min: 1, max: 4094, Meaning: "last VLAN of a range"},
}

// dnsKeys are the keys below "dns".
var dnsKeys = []key{
	{Name: "nameservers", Type: texts, Default: "none", Meaning: "addresses of name servers"},
	{Name: "domain", Type: text, Default: "none", Meaning: "local domain"},
	{Name: "search", Type: texts, Default: "none", Meaning: "search list for host names"},
	{Name: "options", Type: texts, Default: "none", Meaning: "options of the resolver"},
}

// portMapKeys are the keys of portmap.
var portMapKeys = []key{
	{Name: "backend", Type: text, Values: []string{"iptables", "nftables"}, Meaning: "no effect: the rules are always in nftables"},
	{Name: "masqAll", Type: boolean, Default: "false", Meaning: "not supported: bridgeveth keeps the client's address"},
	{Name: "markMasqBit", Type: number, max: 31, Meaning: "no effect"},
	{Name: "externalSetMarkChain", Type: text, Meaning: "no effect"},
	{Name: "conditionsV4", Type: texts, Default: "none", Meaning: "not supported"},
	{Name: "conditionsV6", Type: texts, Default: "none", Meaning: "not supported"},
}

// firewallKeys are the keys of firewall.
var firewallKeys = []key{
	{Name: "backend", Type: text, Default: "auto", Meaning: "how packets get through a FORWARD chain that would drop them"},
	{Name: "iptablesAdminChainName", Type: text, Default: "BRIDGEVETH-ADMIN", Meaning: "chain of your own rules"},
	{Name: "firewalldZone", Type: text, Default: "bridgeveth", Meaning: "firewalld's zone of the bridge"},
	{Name: "ingressPolicy", Type: text, Values: policies, Default: "open", Meaning: "who may open connections to the containers"},
}
