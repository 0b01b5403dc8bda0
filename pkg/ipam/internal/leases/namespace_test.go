package leases

import (
	"path/filepath"
	"testing"
)

// TestGone uses plain files, which like namespaces have a device and an inode.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	there := NamespaceAt(dir)
	if there.Gone() {
		t.Error("a namespace that is there is gone")
	}
	if other := (Namespace{dir, there.Device, there.Inode + 1}); !other.Gone() {
		t.Error("another namespace has taken its place, and it is not gone")
	}
	if none := (Namespace{filepath.Join(dir, "none"), there.Device, there.Inode}); !none.Gone() {
		t.Error("a namespace that is not there is not gone")
	}
	if unseen := NamespaceAt(filepath.Join(dir, "none")); unseen.Gone() {
		t.Error("a namespace that was never seen is gone")
	}
}
