package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// stranger is the ID of another user, and of this user's group.
const stranger = 65534

// TestFolder checks which folders are accepted: only those that no other user can change or
// replace. An accepted folder is created if it is missing. A refused one is not created.
func TestFolder(t *testing.T) {
	t.Parallel()
	if err := os.Chown(t.TempDir(), stranger, stranger); err != nil {
		t.Skip("LISTED SKIP: only root outside of a user namespace can give a folder to another user")
	}
	for name, c := range map[string]struct {
		parent  os.FileMode // mode of the folder in which the entry "data" is
		owner   int         // of this folder
		group   int
		entry   string // "", "folder", or the target of a symbolic link
		creator int    // who has created the entry
		below   string // path below the entry
		refused string // part of the error, or "" if the folder is accepted
	}{
		"new folder":                             {parent: 0o755},
		"new folders":                            {parent: 0o755, below: "a/b"},
		"old folder":                             {parent: 0o755, entry: "folder"},
		"link of root":                           {parent: 0o755, entry: "target"},
		"link up":                                {parent: 0o755, entry: "../parent/./target/../target", below: "a"},
		"link in a folder of the group root":     {parent: 0o775, entry: "target"},
		"folder of root with the sticky bit":     {parent: 0o777 | os.ModeSticky, entry: "folder"},
		"link of root with the sticky bit":       {parent: 0o777 | os.ModeSticky, entry: "target"},
		"new folder with the sticky bit":         {parent: 0o777 | os.ModeSticky},
		"planted link":                           {parent: 0o777, entry: "target", creator: stranger, refused: "parent: other users can change it (owner 0, group 0, mode -rwxrwxrwx); "},
		"planted link with the sticky bit":       {parent: 0o777 | os.ModeSticky, entry: "target", creator: stranger, refused: "data: other users can change it, because user 65534 has created it; "},
		"planted folder with the sticky bit":     {parent: 0o777 | os.ModeSticky, entry: "folder", creator: stranger, below: "a", refused: "data: other users can change it, because user 65534"},
		"new folder where all users can write":   {parent: 0o777, refused: "parent: other users"},
		"new folder in a folder of a stranger":   {parent: 0o755, owner: stranger, refused: "parent: other users can change it (owner 65534"},
		"new folder where a group can write":     {parent: 0o775, group: stranger, refused: "parent: other users can change it (owner 0, group 65534, mode -rwxrwxr-x)"},
		"folder of a stranger":                   {parent: 0o755, entry: "folder", creator: stranger, refused: "data: other users"},
		"folder below a stranger's folder":       {parent: 0o755, entry: "folder", creator: stranger, below: "a", refused: "data: other users"},
		"link to a folder where all can write":   {parent: 0o755, entry: "shared", refused: "shared: other users"},
		"link to a file":                         {parent: 0o755, entry: "file", refused: "file: not a directory"},
		"link to itself":                         {parent: 0o755, entry: "data", refused: "data: too many levels of symbolic links"},
		"link to a folder that is to be created": {parent: 0o755, entry: "missing/a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := filepath.Join(t.TempDir(), "parent")
			data := filepath.Join(parent, "data")
			for folder, mode := range map[string]os.FileMode{parent: 0o700, filepath.Join(parent, "target"): 0o700, filepath.Join(parent, "shared"): 0o777} {
				must(t, os.MkdirAll(folder, 0o700))
				must(t, os.Chmod(folder, mode))
			}
			must(t, os.WriteFile(filepath.Join(parent, "file"), nil, 0o600))
			switch c.entry {
			case "":
			case "folder":
				must(t, os.Mkdir(data, 0o755))
			default:
				must(t, os.Symlink(c.entry, data))
			}
			if c.creator != 0 {
				must(t, os.Lchown(data, c.creator, c.creator))
			}
			must(t, os.Chown(parent, c.owner, c.group))
			must(t, os.Chmod(parent, c.parent))
			path := filepath.Join(data, c.below)
			_, before := os.Stat(path)
			err := MakeFolder(path)
			info, after := os.Stat(path)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) || strings.Contains(c.refused, "other users") != errors.Is(err, ErrShared) {
					t.Errorf("got %v, want an error with %q", err, c.refused)
				}
				if before != nil && after == nil {
					t.Errorf("%s was created", path)
				}
				return
			}
			if err != nil || after != nil {
				t.Fatalf("%v, %v", err, after)
			}
			if before != nil && info.Mode().Perm() != 0o700 {
				t.Errorf("created with the mode %v", info.Mode())
			}
			if err := CheckFolder(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFolderErrors checks the errors about a missing folder, and about a file in place of a folder.
func TestFolderErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := CheckFolder(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := MakeFolder(filepath.Join(file, "a")); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
