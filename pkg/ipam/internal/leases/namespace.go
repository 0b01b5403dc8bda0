package leases

import (
	"os"
	"syscall"
)

// Namespace is the network namespace of a container. Device and Inode are those of the file at
// Path (stat(2)). Both are 0 if the file could not be read.
type Namespace struct {
	Path          string
	Device, Inode uint64
}

// NamespaceAt returns the namespace that is at path at this moment.
func NamespaceAt(path string) Namespace {
	n := Namespace{Path: path}
	if info, err := os.Stat(path); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone reports whether the namespace is no longer at its path, or another namespace is there.
// Gone returns false if Inode is 0: the file could not be read when n was recorded, so nothing is
// known about the namespace.
func (n Namespace) Gone() bool { return n.Inode != 0 && NamespaceAt(n.Path) != n }
