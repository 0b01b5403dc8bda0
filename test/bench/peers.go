package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// peerPackages are the packages of the reference plugins, and of the benchmark's small programs:
// empty, start and peak. The tool lines of test/go.mod fix the versions of the reference plugins.
var peerPackages = []string{
	"github.com/containernetworking/plugins/plugins/main/bridge",
	"github.com/containernetworking/plugins/plugins/ipam/host-local",
	"github.com/containernetworking/plugins/plugins/meta/portmap",
	"github.com/containernetworking/plugins/plugins/meta/firewall",
	"github.com/bridgeveth/bridgeveth/test/bench/empty",
	"github.com/bridgeveth/bridgeveth/test/bench/" + startProgram,
	"github.com/bridgeveth/bridgeveth/test/bench/peak",
}

// startProgram is the name of a program that does nothing. The floor (the least work of any plugin)
// starts it for each ADD, CHECK and DEL.
const startProgram = "start"

// buildPeers builds the reference plugins and installs them into dir. It builds them without cgo,
// like their releases. It builds them without symbols, like bridgeveth, because a smaller file
// starts faster.
func buildPeers(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	built, err := os.MkdirTemp(dir, "built-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(built)
	args := append([]string{"build", "-C", "test", "-trimpath", "-ldflags", "-s -w", "-o", built + string(filepath.Separator)}, peerPackages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the reference plugins: %w", err)
	}
	for _, pkg := range peerPackages {
		if err := install(filepath.Join(built, filepath.Base(pkg)), dir); err != nil {
			return err
		}
	}
	return nil
}

// installOurs installs this project's plugins, one file under two names, into a folder. If they are
// not built, installOurs does nothing.
func installOurs(from, dir string) error {
	if _, err := os.Stat(filepath.Join(from, "bridgeveth")); err != nil {
		return nil //nolint:nilerr // field.lane reports missing plugins if they are needed
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := install(filepath.Join(from, "bridgeveth"), dir); err != nil {
		return err
	}
	second := filepath.Join(dir, "ipam-simple")
	if err := os.Remove(second); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Link(filepath.Join(dir, "bridgeveth"), second)
}

// install copies a program into a folder, as install(1) does. After the linker has written a file,
// the page cache holds the file in smaller pieces, and the program starts a tenth more slowly. A
// copy does not have this disadvantage.
func install(program, dir string) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, filepath.Base(program))
	if err := os.WriteFile(to+".new", text, 0o755); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// programVersion returns the module, the version and the Go release from which an executable file
// was built.
func programVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read version of %s: %w", path, err)
	}
	return fmt.Sprintf("%s %s, %s", info.Main.Path, info.Main.Version, info.GoVersion), nil
}
