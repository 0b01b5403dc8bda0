// Command coredns is CoreDNS with the plugins that test/k8s uses. The released program has fifty more, with
// the libraries of several clouds. This module is apart so that what CoreDNS needs does not decide about the
// dependencies of the tests.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
