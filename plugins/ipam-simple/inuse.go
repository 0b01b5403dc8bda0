package ipamsimple

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// hasLink reports whether an attachment is known to have a link.
func (p Plugin) hasLink(a ipam.Attachment) bool { return p.HasLink != nil && p.HasLink(a) }

// hasNoLink reports whether an attachment is known to have no link.
func (p Plugin) hasNoLink(a ipam.Attachment) bool { return p.HasLink != nil && !p.HasLink(a) }

// mayBeInUse reports whether a lease may be in use, because its container has a namespace or a
// link. ADD does not end such a lease.
func (p Plugin) mayBeInUse(l ipam.Lease) bool { return !l.Namespace.Gone() || p.hasLink(l.Attachment) }

// inUseAfterGC returns a function that reports whether a lease counts as leased for STATUS. The
// lease counts if its container has a link, and a process in its namespace.
//
// A runtime may keep the namespace of a pod that it has forgotten. GC frees the lease of such a
// pod. But CRI-O calls GC only after STATUS has succeeded, so STATUS must not count this lease.
// ADD does not end the lease, because a pod without a process may start again.
func (p Plugin) inUseAfterGC() func(ipam.Lease) bool {
	withProcess := sync.OnceValue(namespacesWithProcess)
	return func(l ipam.Lease) bool {
		if !p.mayBeInUse(l) || p.hasNoLink(l.Attachment) {
			return false
		}
		return l.Namespace.Inode == 0 || withProcess()[l.Namespace.Inode]
	}
}

// namespacesWithProcess returns the inodes of the network namespaces that have a process. It
// reads one symbolic link for each process that it can see.
func namespacesWithProcess() map[uint64]bool {
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
