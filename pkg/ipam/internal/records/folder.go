package records

import "bytes"

// A network notes which folders its records come from: each folder is read once. A folder of
// sticky addresses that was read is also written to.
var (
	importedKey = []byte("imported ") // then the dataDir of host-local
	stickyKey   = []byte("recalled ") // then the folder of the sticky file
)

// Imported reports whether the reservations in host-local's dataDir were taken over.
func (n *Network) Imported(dataDir string) bool { return n.has(importedKey, dataDir) }

// SetImported notes that they were taken over.
func (n *Network) SetImported(dataDir string) error { return n.add(importedKey, dataDir) }

// StickyLoaded reports whether the names of a sticky file were added.
func (n *Network) StickyLoaded(dir string) bool { return n.has(stickyKey, dir) }

// SetStickyLoaded notes that they were added.
func (n *Network) SetStickyLoaded(dir string) error { return n.add(stickyKey, dir) }

// StickyFolders returns the folders whose sticky file was added.
func (n *Network) StickyFolders() (dirs []string) {
	c := n.root.Cursor()
	for k, _ := c.Seek(stickyKey); bytes.HasPrefix(k, stickyKey); k, _ = c.Next() {
		dirs = append(dirs, string(k[len(stickyKey):]))
	}
	return dirs
}

func (n *Network) has(key []byte, dir string) bool {
	return n.root.Get(append(bytes.Clone(key), dir...)) != nil
}

func (n *Network) add(key []byte, dir string) error {
	return n.root.Put(append(bytes.Clone(key), dir...), nil)
}
