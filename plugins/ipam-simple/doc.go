// Package ipamsimple is the CNI plugin ipam-simple: it gives containers addresses from ranges on
// this host. bridgeveth calls the verbs of this package in its own process. The separate program
// ipam-simple is the executable file of bridgeveth under another name (cmd/bridgeveth).
//
// pkg/ipam stores the leases. The package makes no netlink call: the plugin that calls it supplies
// functions that find links (see Plugin).
//
// Start with Plugin in plugin.go. Each verb has a file: add.go, del.go, check.go, gc.go, status.go.
// store.go opens the store. pkg/ipamconfig reads the configuration.
package ipamsimple
