// Start does nothing. Its run time is that of the start of a CNI plugin in Go that uses netlink.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
)

func main() {
	if len(os.Args) > 1 { // never true; the linker drops code that is never called
		skel.PluginMainFuncs(skel.CNIFuncs{}, version.All, "")
		_, _ = netlink.LinkByName(os.Args[1])
	}
}
