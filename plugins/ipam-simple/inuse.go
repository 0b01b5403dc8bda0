package ipamsimple

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// hasLink reports whether an attachment certainly has a link.
func (p Plugin) hasLink(a ipam.Attachment) bool { return p.HasLink != nil && p.HasLink(a) }

// hasNoLink reports whether an attachment certainly has no link.
func (p Plugin) hasNoLink(a ipam.Attachment) bool { return p.HasLink != nil && !p.HasLink(a) }

// mayBeInUse reports whether the namespace or the link of a lease's container may still exist. ADD
// does not take over such a lease.
func (p Plugin) mayBeInUse(l ipam.Lease) bool { return !l.Namespace.Gone() || p.hasLink(l.Attachment) }

// inUseAfterGC returns the function with which STATUS decides whether an address counts as leased.
// A lease does not count if ADD may take it over. It does not count either if the container
// certainly has no link, or if no process is in the container's namespace.
//
// A runtime may forget a pod and keep its namespace. GC frees the lease of such a pod. But CRI-O
// calls GC only after STATUS has succeeded, so STATUS must not count this lease. ADD does not take
// over the lease, because a pod without a process may start again.
func (p Plugin) inUseAfterGC() func(ipam.Lease) bool {
	withProcess := sync.OnceValue(namespacesWithProcess)
	return func(l ipam.Lease) bool {
		if !p.mayBeInUse(l) || p.hasNoLink(l.Attachment) {
			return false
		}
		return l.Namespace.Inode == 0 || withProcess()[l.Namespace.Inode]
	}
}

// namespacesWithProcess returns the inodes of the network namespaces in which a process runs. It
// reads one symbolic link in /proc for each process.
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
