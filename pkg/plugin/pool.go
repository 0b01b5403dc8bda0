package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	// poolProgram claims blocks of a pool of addresses that hosts share.
	poolProgram = "bridgeveth-pool"
	// PoolExhausted is the exit status of bridgeveth-pool if each block of the pool has an owner.
	PoolExhausted = 3
	// PoolTaken is the exit status of bridgeveth-pool if another host owns the block of an address.
	PoolTaken = 4
)

// poolDeadline is longer than the time that the program gives etcd, so that the program can say what
// was wrong.
var poolDeadline = 30 * time.Second

// poolFolders are the folders of bridgeveth-pool, after the folder of this program's own file.
var poolFolders = []string{"/usr/local/sbin", "/usr/sbin"}

// ClaimBlocks runs "bridgeveth-pool claim" with a network configuration, and waits until the program
// has ended. The program first claims the blocks of the given addresses. The error has the code
// CodeProgram if the program is missing, CodeTaken if another host owns the block of an address,
// CodeExhausted if each block has an owner, and types.ErrTryAgainLater otherwise.
func ClaimBlocks(conf []byte, addresses ...netip.Addr) error {
	args := []string{"claim", "--config", "-"}
	for _, a := range addresses {
		args = append(args, "--address", a.String())
	}
	cmd, err := PoolCommand(context.Background(), args...)
	if err != nil {
		return err
	}
	cmd.Stdin = bytes.NewReader(conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	late := false
	if err = cmd.Start(); err == nil {
		// A context with a deadline would make the file of the plugin 20 KB larger.
		timer := time.AfterFunc(poolDeadline, func() { _ = cmd.Process.Kill() }) // the error says that the process has ended
		err = cmd.Wait()
		late = !timer.Stop()
	}
	switch {
	case err == nil:
		return nil
	case late:
		return Errorf(types.ErrTryAgainLater, "%s did not end within %s; look for the process that keeps it waiting, then try again", cmd.Path, poolDeadline)
	}
	code := types.ErrTryAgainLater
	switch cmd.ProcessState.ExitCode() { // -1 without a process
	case PoolExhausted:
		code = CodeExhausted
	case PoolTaken:
		code = CodeTaken
	}
	return Errorf(code, "%w", said(err, stderr.Bytes()))
}

// PoolCommand returns a call of bridgeveth-pool with arguments. The error has the code CodeProgram if the
// program is missing.
func PoolCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := findPool()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// said returns what a program has printed as an error. If it has printed nothing, said returns err.
func said(err error, stderr []byte) error {
	if text := bytes.TrimSpace(stderr); len(text) > 0 {
		return errors.New(string(text[max(0, len(text)-maxOutput):]))
	}
	return fmt.Errorf("%s claim: %w", poolProgram, err)
}

// findPool returns the path of bridgeveth-pool: beside the file of this program, or in poolFolders.
func findPool() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", Errorf(types.ErrIOFailure, "find the file of this program: %w", err)
	}
	beside := filepath.Dir(own)
	for _, dir := range append([]string{beside}, poolFolders...) {
		path := filepath.Join(dir, poolProgram)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", Errorf(CodeProgram, "bridgeveth-pool is in none of the folders %s, %s and %s; install it there, and start its service", beside, poolFolders[0], poolFolders[1])
}
