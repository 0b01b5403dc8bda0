package leases

import (
	"path/filepath"
	"testing"
)

// TestGone checks the method Gone. It uses a folder in place of a namespace's file, because a
// folder also has a device and an inode.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	there := NamespaceAt(dir)
	if there.Gone() {
		t.Error("an existing namespace counts as gone")
	}
	if other := (Namespace{dir, there.Device, there.Inode + 1}); !other.Gone() {
		t.Error("a namespace that another one has replaced does not count as gone")
	}
	if none := (Namespace{filepath.Join(dir, "none"), there.Device, there.Inode}); !none.Gone() {
		t.Error("a missing namespace does not count as gone")
	}
	if unseen := NamespaceAt(filepath.Join(dir, "none")); unseen.Gone() {
		t.Error("a namespace that could not be read at first counts as gone")
	}
}
