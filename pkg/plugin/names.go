package plugin

// The names of the plugins. A name is the value of "type" in a configuration, and the name of the
// executable file in CNI_PATH.
const (
	Bridgeveth = "bridgeveth"
	IPAMSimple = "ipam-simple"

	// Names of reference plugins, for the drop-in installation.
	Bridge    = "bridge"     // runs bridgeveth
	HostLocal = "host-local" // runs ipam-simple
	PortMap   = "portmap"
	Firewall  = "firewall"
	Loopback  = "loopback"
)

// IsBridgeveth reports whether bridgeveth may be installed under this name.
func IsBridgeveth(name string) bool { return name == Bridgeveth || name == Bridge }

// IsIPAMSimple reports whether ipam-simple may be installed under this name.
func IsIPAMSimple(name string) bool { return name == IPAMSimple || name == HostLocal }
