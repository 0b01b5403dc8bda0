// Package harness is what the suites that drive real programs share: the programs, and
// a look at who holds which address.
package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// programsVar names the folder with the programs to the tests that are run in a process
// of their own, and to those that somebody else has built programs for.
const programsVar = "PROGRAMS"

// Main is what TestMain calls: it sees to it that the programs named are there, sets *dir
// to their folder, runs the tests and ends the process. The folder is a new one, or that
// named by PROGRAMS, whose contents are used as they are.
func Main(m *testing.M, dir *string, names ...string) {
	status := 1
	defer func() { os.Exit(status) }()
	var err error
	if *dir = os.Getenv(programsVar); *dir == "" {
		if *dir, err = os.MkdirTemp("", "bridgeveth-programs-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer os.RemoveAll(*dir)
	}
	if err = os.Setenv(programsVar, *dir); err == nil {
		err = Build(*dir, names...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	status = m.Run()
}

// sources are the packages of programs. Those that begin with "./" are of the product. The tool
// lines of test/go.mod name the others, and so decide their version.
var sources = map[string]string{
	"bridgeveth": "./cmd/bridgeveth",
	"bvctl":      "./cmd/bvctl",
	"cnitool":    "github.com/containernetworking/cni/cnitool",
	"bridge":     reference + "main/bridge",
	"loopback":   reference + "main/loopback",
	"ptp":        reference + "main/ptp",
	"dhcp":       reference + "ipam/dhcp",
	"host-local": reference + "ipam/host-local",
	"static":     reference + "ipam/static",
	"firewall":   reference + "meta/firewall",
	"portmap":    reference + "meta/portmap",
	"sbr":        reference + "meta/sbr",
	"tuning":     reference + "meta/tuning",
}

const reference = "github.com/containernetworking/plugins/plugins/"

// product is the folder of the module that ships, seen from a suite. Its programs are built there,
// with the dependencies of its own go.mod: those of test/go.mod may be newer.
const product = "../.."

// Build puts those of the programs named that are missing into dir, bridgeveth under both
// of its names.
func Build(dir string, names ...string) error {
	missing := map[string][]string{} // by the folder of their module
	for _, name := range names {
		source, known := sources[name]
		if !known {
			return fmt.Errorf("build %s: its package is not in the list", name)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		module := ".."
		if strings.HasPrefix(source, "./") {
			module = product
		}
		missing[module] = append(missing[module], source)
	}
	for module, packages := range missing {
		build := exec.Command("go", append([]string{"build", "-C", module, "-o", dir + "/"}, packages...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make builds them
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", build, err, out)
		}
	}
	err := os.Link(filepath.Join(dir, "bridgeveth"), filepath.Join(dir, "ipam-simple"))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
