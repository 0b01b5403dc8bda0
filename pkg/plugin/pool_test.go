package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestClaimBlocks checks the errors about a program that is missing or that fails.
func TestClaimBlocks(t *testing.T) {
	before := poolFolders
	defer func() { poolFolders = before }()
	dir := t.TempDir()
	poolFolders = []string{filepath.Join(dir, "none"), dir}
	for _, tt := range []struct {
		name, script string
		code         uint
		want         string
	}{
		{"missing", "", CodeProgram, "bridgeveth-pool is in none of the folders "},
		{"claims", `grep -q '^{}$' && test "$*" = "claim --config -"`, 0, ""},
		{"fails", "echo etcd unreachable since noon >&2; exit 1", types.ErrTryAgainLater, "etcd unreachable since noon"},
		{"full", "echo every block has an owner >&2; exit 3", CodeExhausted, "every block has an owner"},
		{"killed", "kill -9 $$", types.ErrTryAgainLater, "bridgeveth-pool claim: signal: killed"},
	} {
		if tt.script != "" {
			if err := os.WriteFile(filepath.Join(dir, poolProgram), []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil { //nolint:gosec // a program
				t.Fatal(err)
			}
		}
		err := ClaimBlocks([]byte("{}\n"))
		var e *types.Error
		if tt.code == 0 && err == nil {
			continue
		}
		if !errors.As(err, &e) || e.Code != tt.code || !strings.HasPrefix(e.Msg, tt.want) {
			t.Errorf("%s: %v, want code %d, %s", tt.name, err, tt.code, tt.want)
		}
	}
}
