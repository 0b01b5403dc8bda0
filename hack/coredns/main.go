// Command coredns is CoreDNS with only the plugins that test/k8s uses. The released program has
// fifty more plugins, which need the libraries of several clouds. Command coredns is a separate Go
// module, so that the tests do not get the dependencies of CoreDNS.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
