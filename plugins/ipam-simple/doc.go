// Package ipamsimple is the CNI plugin ipam-simple: it gives containers addresses from ranges on
// this host. bridgeveth calls the verbs of this package in its own process. The separate program
// ipam-simple is the executable file of bridgeveth under another name (cmd/bridgeveth).
//
// The package reads CNI configurations and results. pkg/ipam stores the leases. The package makes
// no netlink call: the plugin that calls it supplies functions that find links (see Plugin).
//
// Start with Plugin in plugin.go. Each verb has a file: add.go, del.go, check.go, gc.go, status.go.
// config.go declares the configuration keys, and store.go opens the store.
package ipamsimple
