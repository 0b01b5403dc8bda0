// Bridgeveth is the program of all CNI plugins here: it is the one that it is called by
// the name of. Some names are those of plugins of the reference implementation, whose
// places it takes (docs/dropin.md).
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

// referenceVersion is the release of containernetworking/plugins that ours behave like
// under the names of its plugins. It is what they say there, since programs conclude
// from it what a plugin can do: nerdctl wants v1.1.0 of firewall, and v1.7.1 for some.
const referenceVersion = "v1.10.0"

// program is what the file is under a name.
type program struct {
	verbs     func() skel.CNIFuncs
	reference bool // it takes the place of a plugin of the reference implementation
	goesOn    bool // that one goes on with what is none of ours, if it has been kept
}

var programs = map[string]program{
	bridgeveth.Name:      {verbs: bridgeveth.Verbs},
	ipamsimple.Name:      {verbs: ipamsimple.Verbs},
	bridgeveth.Reference: {verbs: bridgeveth.Verbs, reference: true, goesOn: true},
	ipamsimple.Reference: {verbs: ipamsimple.Verbs, reference: true},
	portmap.Name:         {verbs: portmap.Verbs, reference: true, goesOn: true},
	firewall.Name:        {verbs: firewall.Verbs, reference: true, goesOn: true},
	loopback.Name:        {verbs: loopback.Verbs, reference: true},
}

// A network namespace belongs to a thread: main stays on the first. Locked here, where the
// stack is shallow, that is also cheaper: the runtime starts a thread for it.
func init() { runtime.LockOSThread() }

func main() {
	name := filepath.Base(os.Args[0])
	p, known := programs[name]
	if !known {
		name, p = bridgeveth.Name, programs[bridgeveth.Name]
	}
	verbs, release := p.verbs(), plugin.Version
	if p.reference {
		// What stands behind the plus makes no difference to who compares (semver.org, 10).
		release = referenceVersion + "+bridgeveth." + plugin.Version
	}
	if p.goesOn {
		verbs = orReference(name, verbs)
	}
	os.Exit(plugin.Main(name, release, verbs))
}
