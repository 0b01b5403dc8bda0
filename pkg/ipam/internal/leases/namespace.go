package leases

import (
	"os"
	"syscall"
)

// Namespace is the network namespace of a container. Device and Inode are those of the file at Path
// (stat(2)). If the file could not be read, both numbers are 0.
type Namespace struct {
	Path          string
	Device, Inode uint64
}

// NamespaceAt returns the network namespace whose file is at path now.
func NamespaceAt(path string) Namespace {
	n := Namespace{Path: path}
	if info, err := os.Stat(path); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone reports whether the namespace's file is no longer at its path, or is now the file of another
// namespace. If Inode is 0, Gone returns false: the file could not be read when n was recorded, so
// nothing is known about the namespace.
func (n Namespace) Gone() bool { return n.Inode != 0 && NamespaceAt(n.Path) != n }
