package forward

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ProgramPath returns the path of a program. It searches the folders in the parameter "first", then
// the folders in PATH, then the sbin folders, because the PATH of a daemon or user may lack the
// sbin folders. If the program is not found, it returns the error of the last folder.
func ProgramPath(name string, first ...string) (path string, err error) {
	for _, dir := range append(first, "", "/usr/sbin", "/sbin", "/usr/local/sbin") {
		if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
			break
		}
	}
	return path, err
}

// ErrNoIPTables is returned if rules are missing and the program that could add them is not
// installed.
var ErrNoIPTables = errors.New("no such program in PATH, /usr/sbin, /sbin or /usr/local/sbin; " +
	`install iptables, or choose another "forward"`)

// findProgram returns the path of the iptables program that writes a table. It first searches for
// the name with the flavour, such as iptables-legacy. Some distributions have only the plain name,
// such as iptables. findProgram accepts the plain name if that program writes the flavour of the
// table.
func findProgram(t filter) (string, error) {
	plain := filter{family: t.family}.program()
	for _, name := range slices.Compact([]string{t.program(), plain}) {
		if path, err := ProgramPath(name); err == nil && (t.flavour == "" || !writesNFT(path)) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", t.program(), ErrNoIPTables)
}

// writesNFT reports whether a program is iptables-nft. It follows symbolic links, and decides by
// the name of the file to which they lead.
func writesNFT(path string) bool {
	resolved, err := filepath.EvalSymlinks(path)
	return err == nil && strings.Contains(filepath.Base(resolved), "nft")
}
