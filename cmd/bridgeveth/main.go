// Bridgeveth is the program of two CNI plugins: of bridgeveth, and of ipam-simple when it
// is called by that name.
package main

import (
	"os"
	"path/filepath"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

func main() {
	name, verbs := "bridgeveth", bridgeveth.Verbs()
	if filepath.Base(os.Args[0]) == ipamsimple.Name {
		name, verbs = ipamsimple.Name, ipamsimple.Verbs()
	}
	os.Exit(plugin.Main(name, plugin.Version, verbs))
}
