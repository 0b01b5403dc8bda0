// Package bridgeveth is the CNI plugin bridgeveth: it connects a container to a Linux
// bridge by a veth pair, lets its packets through a FORWARD chain that denies them, and
// leaves the choice of addresses to an IPAM plugin. Its program is cmd/bridgeveth.
package bridgeveth

import "github.com/containernetworking/cni/pkg/skel"

// Name is what the program is called by, and Reference the plugin of the reference
// implementation whose place it takes where it is installed by that name.
const (
	Name      = "bridgeveth"
	Reference = "bridge"
)

// Verbs are the plugin's, for skel.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
}
