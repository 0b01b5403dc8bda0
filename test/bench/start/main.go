// Start does nothing. Its run time is the time that a CNI plugin needs to start if it is written in
// Go and links a netlink library.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
)

func main() {
	if len(os.Args) > 1 { // never true; without the call, the linker would drop the code
		skel.PluginMainFuncs(skel.CNIFuncs{}, version.All, "")
		_, _ = netlink.LinkByName(os.Args[1])
	}
}
