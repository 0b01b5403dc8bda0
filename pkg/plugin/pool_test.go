package plugin

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// TestClaimBlocks checks the errors about a program that is missing or that fails.
func TestClaimBlocks(t *testing.T) {
	before, longest := poolFolders, poolDeadline
	defer func() { poolFolders, poolDeadline = before, longest }()
	dir := t.TempDir()
	poolFolders = []string{filepath.Join(dir, "none"), dir}
	for _, tt := range []struct {
		name, script string
		code         uint
		want         string
	}{
		{"missing", "", CodeProgram, "bridgeveth-pool is in none of the folders "},
		{"claims", `grep -q '^{}$' && test "$*" = "claim --config - --address 10.1.0.9 --address fd00::9"`, 0, ""},
		{"fails", "echo etcd unreachable since noon >&2; exit 1", types.ErrTryAgainLater, "etcd unreachable since noon"},
		{"full", "echo every block has an owner >&2; exit 3", CodeExhausted, "every block has an owner"},
		{"taken", "echo the block belongs to host b >&2; exit 4", CodeTaken, "the block belongs to host b"},
		{"killed", "kill -9 $$", types.ErrTryAgainLater, "bridgeveth-pool claim: signal: killed"},
		{"hangs", "exec sleep 3600", types.ErrTryAgainLater, dir + "/bridgeveth-pool did not end within 10ms; look for the process that keeps it waiting"},
	} {
		poolDeadline = longest
		if tt.name == "hangs" {
			poolDeadline = 10 * time.Millisecond
		}
		if tt.script != "" {
			if err := os.WriteFile(filepath.Join(dir, poolProgram), []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil { //nolint:gosec // a program
				t.Fatal(err)
			}
		}
		err := ClaimBlocks([]byte("{}\n"), netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd00::9"))
		var e *types.Error
		if tt.code == 0 && err == nil {
			continue
		}
		if !errors.As(err, &e) || e.Code != tt.code || !strings.HasPrefix(e.Msg, tt.want) {
			t.Errorf("%s: %v, want code %d, %s", tt.name, err, tt.code, tt.want)
		}
	}
}
