package leases

import (
	"os"
	"syscall"
)

// Namespace is the network namespace of a container. Device and Inode are those of the file at
// Path (stat(2)). They are 0 if the file could not be read.
type Namespace struct {
	Path          string
	Device, Inode uint64
}

// NamespaceAt returns the namespace that is at path now.
func NamespaceAt(path string) Namespace {
	n := Namespace{Path: path}
	if info, err := os.Stat(path); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone reports whether the namespace is no longer at its path, or another namespace is there. It
// returns false if NamespaceAt could not read the file.
func (n Namespace) Gone() bool { return n.Inode != 0 && NamespaceAt(n.Path) != n }
