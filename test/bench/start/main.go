// Start does nothing: what the start of a CNI plugin in Go takes that speaks netlink.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
)

func main() {
	if len(os.Args) > 1 { // never; what is not called would not be linked
		skel.PluginMainFuncs(skel.CNIFuncs{}, version.All, "")
		_, _ = netlink.LinkByName(os.Args[1])
	}
}
