package records

import "bytes"

// A network records each folder from which it has imported something, so that it imports each
// folder only once. There are two kinds of folders: a dataDir of host-local, and a folder with a
// sticky file. If sticky addresses change, the store writes the sticky files in all folders of the
// second kind.
var (
	importedKey = []byte("imported ") // followed by the dataDir of host-local
	stickyKey   = []byte("recalled ") // followed by the folder of the sticky file
)

// Imported reports whether the network has imported the reservations in host-local's dataDir.
func (n *Network) Imported(dataDir string) bool { return n.has(importedKey, dataDir) }

// SetImported records that the network has imported the reservations in host-local's dataDir.
func (n *Network) SetImported(dataDir string) error { return n.add(importedKey, dataDir) }

// StickyLoaded reports whether the network has read the sticky file in the folder dir.
func (n *Network) StickyLoaded(dir string) bool { return n.has(stickyKey, dir) }

// SetStickyLoaded records that the network has read the sticky file in the folder dir.
func (n *Network) SetStickyLoaded(dir string) error { return n.add(stickyKey, dir) }

// StickyFolders returns the folders whose sticky file the network has read (see SetStickyLoaded).
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
