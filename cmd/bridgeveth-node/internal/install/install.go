// Package install copies the plugin files into the folder in which a runtime searches for plugins.
package install

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

const module = "github.com/bridgeveth/bridgeveth"

// names are the names of the plugins. All plugins are the same file. Each node needs a plugin
// called loopback, because containerd runs this plugin for every pod. If the folder has a loopback
// of another project, the agent keeps that file.
var names = []string{plugin.Bridgeveth, plugin.IPAMSimple, plugin.Loopback}

// tool is the name of another program. The agent installs it if it is in the folder of the plugin
// file. A plugin runs bvctl to ask firewalld, and searches for bvctl in its own folder first.
const tool = "bvctl"

// Plugins installs the plugin file at source into a folder, under all of its names. It returns the
// names that it installed. At any time, each name leads to the whole old file or to the whole new
// file. A running plugin keeps the file from which it was started.
func Plugins(source, folder string) (installed []string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	temporary := filepath.Join(folder, ".bridgeveth.new")
	defer func() { _ = os.Remove(temporary) }() // the file exists only after a failure
	copied, err := copyTool(filepath.Join(filepath.Dir(source), tool), filepath.Join(folder, tool), temporary)
	if err != nil {
		return nil, fmt.Errorf("install %s/%s: %w", folder, tool, err)
	}
	if copied {
		installed = append(installed, tool)
	}
	for _, name := range names {
		path := filepath.Join(folder, name)
		current, err := upToDate(name, source, path)
		if err != nil {
			return installed, fmt.Errorf("compare %s with %s: %w", path, source, err)
		}
		if current {
			continue
		}
		// All names are hard links to one file. The name under which a process was started selects
		// the plugin.
		if name == names[0] {
			err = copySynced(source, temporary)
		} else {
			err = link(filepath.Join(folder, names[0]), temporary)
		}
		if err == nil {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			return installed, fmt.Errorf("install %s: %w", path, err)
		}
		installed = append(installed, name)
	}
	return installed, nil
}

// copyTool copies a file unless path already has the same content. copied reports whether it copied
// the file. If source does not exist, copyTool does nothing.
func copyTool(source, path, temporary string) (copied bool, err error) {
	if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	same, err := sameText(source, path)
	if err != nil || same {
		return false, err
	}
	if err := copySynced(source, temporary); err != nil {
		return false, err
	}
	return true, os.Rename(temporary, path)
}

// upToDate reports whether the file at path is already the correct file for this name.
func upToDate(name, source, path string) (bool, error) {
	if name == names[0] {
		return sameText(source, path)
	}
	first, err := os.Stat(filepath.Join(filepath.Dir(path), names[0]))
	if err != nil {
		return false, err
	}
	present, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(first, present) || name == plugin.Loopback && !isOwn(path), nil
}

// isOwn reports whether a program was built from this project.
func isOwn(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Main.Path == module
}

func sameText(a, b string) (bool, error) {
	old, err := os.ReadFile(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(a)
	return bytes.Equal(old, text), err
}

// link creates a hard link. It replaces a link that a killed agent has left under this path.
func link(file, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(file, path)
}

// copySynced copies a file to a new file and writes it to the disk.
func copySynced(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // path may be a link to an installed file, which must not change
	}
	// No fork may happen while the file is open for writing. A child process would keep the
	// descriptor until its exec, and executing the file meanwhile would fail with ETXTBSY
	// (execve(2)).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Chmod(0o755), target.Sync(), target.Close())
}
