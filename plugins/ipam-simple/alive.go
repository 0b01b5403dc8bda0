package ipamsimple

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// HasLink says whether an attachment still has its link on the host. A plugin that
// calls our verbs, and knows how it names its links, sets it: a lease whose
// namespace cannot be seen any more is kept while there is one.
// It is nil where nobody knows.
var HasLink func(ipam.Attachment) bool

func hasLink(a ipam.Attachment) bool { return HasLink != nil && HasLink(a) }

// alive says whether a lease may still be in use: ADD takes back no such lease.
func alive(l ipam.Lease) bool { return !l.Namespace.Gone() || hasLink(l.Attachment) }

// needed returns a function that says whether a lease counts as taken for STATUS: its container
// has a link and a process. A runtime may pin the namespace of a pod that it has forgotten. ADD
// leaves the lease of such a pod alone, because a pod without a process may start again. GC frees
// the lease, but CRI-O calls GC only after STATUS has succeeded.
func needed() func(ipam.Lease) bool {
	inhabited := sync.OnceValue(inhabitedNamespaces)
	return func(l ipam.Lease) bool {
		if !alive(l) || HasLink != nil && !HasLink(l.Attachment) {
			return false
		}
		return l.Namespace.Inode == 0 || inhabited()[l.Namespace.Inode]
	}
}

// inhabitedNamespaces are the network namespaces that have a process, by inode. It reads one
// symbolic link for each process that it can see.
func inhabitedNamespaces() map[uint64]bool {
	found := map[uint64]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is well-formed
	for _, path := range links {
		var inode uint64
		name, err := os.Readlink(path) // "net:[4026531840]": namespaces(7)
		if err != nil {
			continue // the process has ended
		}
		if _, err := fmt.Sscanf(name, "net:[%d]", &inode); err == nil {
			found[inode] = true
		}
	}
	return found
}
