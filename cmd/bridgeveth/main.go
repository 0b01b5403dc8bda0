package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
	"github.com/bridgeveth/bridgeveth/plugins/firewall"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
	"github.com/bridgeveth/bridgeveth/plugins/loopback"
	"github.com/bridgeveth/bridgeveth/plugins/portmap"
)

// referenceVersion is the release of containernetworking/plugins that our plugins replace. If our
// program runs under the name of a reference plugin, it prints this version, because other
// programs derive the features of a plugin from its version: nerdctl requires v1.1.0 of firewall,
// and v1.7.1 for some options.
const referenceVersion = "v1.10.0"

// program describes one plugin. The table programs below lists all plugins.
type program struct {
	verbs     func() skel.CNIFuncs
	reference bool // the name is that of a reference plugin
	delegates bool // the plugin calls the reference plugin for attachments that bridgeveth has not made, see orReference
}

var programs = map[string]program{
	plugin.Bridgeveth: {verbs: bridgeveth.Verbs},
	plugin.IPAMSimple: {verbs: ipamsimple.Verbs},
	plugin.Bridge:     {verbs: bridgeveth.Verbs, reference: true, delegates: true},
	plugin.HostLocal:  {verbs: ipamsimple.Verbs, reference: true},
	plugin.PortMap:    {verbs: portmap.Verbs, reference: true, delegates: true},
	plugin.Firewall:   {verbs: firewall.Verbs, reference: true, delegates: true},
	plugin.Loopback:   {verbs: loopback.Verbs, reference: true},
}

// init locks the main goroutine to its thread, because setns(2) changes the network namespace of a
// single thread. The call is in init and not in main to save time: the first call of LockOSThread
// makes the Go runtime start another thread, and this start takes longer with a deep call stack.
func init() { runtime.LockOSThread() }

func main() {
	name := filepath.Base(os.Args[0])
	p, known := programs[name]
	if !known {
		name, p = plugin.Bridgeveth, programs[plugin.Bridgeveth]
	}
	verbs, release := p.verbs(), plugin.Version
	if p.reference {
		// Programs that compare versions ignore the part after the plus sign (semver.org, item 10).
		release = referenceVersion + "+bridgeveth." + plugin.Version
	}
	if p.delegates {
		verbs = orReference(name, verbs)
	}
	os.Exit(plugin.Main(name, release, verbs))
}
