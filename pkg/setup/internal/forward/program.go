package forward

import (
	"os/exec"
	"path/filepath"
)

// ProgramPath looks for a program in the folders given, in PATH, and in the sbin folders,
// which not every daemon, and not everybody, has in PATH. The error is that of the last
// place.
func ProgramPath(name string, first ...string) (path string, err error) {
	for _, dir := range append(first, "", "/usr/sbin", "/sbin", "/usr/local/sbin") {
		if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
			break
		}
	}
	return path, err
}
