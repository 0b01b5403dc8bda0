// Package harness contains code that all tests with real programs share. It builds the programs,
// records the input that a runtime sends to a plugin, reads leases, and waits for conditions.
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

// programsVar is the environment variable that names the folder of the programs. Main sets it,
// because some tests start their own test program again, which must not build the programs a second
// time. hack/test-vm.sh also sets it, because the virtual machine has no compiler.
const programsVar = "PROGRAMS"

// Main builds the programs with the given names in a new folder, sets *dir to the folder, runs the
// tests and ends the process. If the environment variable PROGRAMS names a folder, Main uses this
// folder and builds only the missing programs. TestMain of each package calls Main.
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

// sources are the packages of the programs. A package that begins with "./" belongs to this
// project's main module. The tool lines of test/go.mod name the other packages, and so fix their
// versions.
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

// product is the folder of the project's main module, relative to the folder of a test package. The
// programs of this module are built in this folder, so that Go uses the dependencies in its go.mod.
// The dependencies in test/go.mod may be newer.
const product = "../.."

// Build builds those of the named programs that do not exist in dir yet. It creates ipam-simple as
// a hard link to bridgeveth.
func Build(dir string, names ...string) error {
	missing := map[string][]string{} // by module folder
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
