// Bridgeveth is a CNI plugin: it connects a container to a Linux bridge by a
// veth pair, lets its packets through a FORWARD chain that denies them, and
// leaves the choice of addresses to an IPAM plugin.
//
// The same file is that plugin too, when it is called as ipam-simple.
package main

import (
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

func main() {
	name, verbs := "bridgeveth", skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
	if filepath.Base(os.Args[0]) == ipamsimple.Name {
		name, verbs = ipamsimple.Name, ipamsimple.Verbs()
	}
	os.Exit(plugin.Main(name, verbs))
}
