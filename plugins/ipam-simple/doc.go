// Package ipamsimple is the CNI plugin ipam-simple: it gives containers addresses from ranges
// on this host. bridgeveth calls its verbs in its own process; as a program it is the
// executable bridgeveth under another name (cmd/bridgeveth).
//
// It reads CNI configurations and results, and leaves leases to pkg/ipam. It makes no netlink
// call: the calling plugin tells it about links (Plugin).
//
// Start with Plugin in plugin.go. Each verb has a file: add.go, del.go, check.go, gc.go,
// status.go. config.go declares the configuration keys, and store.go opens the store.
package ipamsimple
