package forward

import (
	"os/exec"
	"path/filepath"
)

// ProgramPath returns the path of a program. It looks in the folders of first, then in PATH, then in the
// sbin folders, because daemons and users may have a PATH without them. The error is that of the last
// folder.
func ProgramPath(name string, first ...string) (path string, err error) {
	for _, dir := range append(first, "", "/usr/sbin", "/sbin", "/usr/local/sbin") {
		if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
			break
		}
	}
	return path, err
}
