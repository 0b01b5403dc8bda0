package plugin

// The names of bridgeveth's plugins. A name is the value of "type" in a configuration, and the name
// of the executable file in CNI_PATH.
const (
	Bridgeveth = "bridgeveth"
	IPAMSimple = "ipam-simple"

	// The names of reference plugins. In the drop-in installation, bridgeveth's plugins have these
	// names.
	Bridge    = "bridge"     // runs bridgeveth
	HostLocal = "host-local" // runs ipam-simple
	PortMap   = "portmap"
	Firewall  = "firewall"
	Loopback  = "loopback"
)

// IsBridgeveth reports whether name is one of the names of bridgeveth.
func IsBridgeveth(name string) bool { return name == Bridgeveth || name == Bridge }

// IsIPAMSimple reports whether name is one of the names of ipam-simple.
func IsIPAMSimple(name string) bool { return name == IPAMSimple || name == HostLocal }
