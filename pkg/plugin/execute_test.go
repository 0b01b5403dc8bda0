package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestExecuteFails checks that the error of Execute contains the output of the plugin that failed.
func TestExecuteFails(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		code         uint // 0 means that the error is no CNI error
		want         string
	}{
		{"an error of CNI's", `echo "noise" >&2; echo '{"code": 11, "msg": "busy", "details": "very"}'; exit 1`, 11, "busy; very"},
		{"text on standard output", `echo; echo "no lease"; echo "at all"; exit 3`, 0, "exit status 3: no lease\nat all"},
		{"text on standard error", `echo "no lease" >&2; exit 3`, 0, "exit status 3: no lease"},
		{"text on both", `echo "no lease"; echo "panic: at all" >&2; exit 2`, 0, "exit status 2: no lease: panic: at all"},
		{"JSON without a message", `echo '{"code": 7}'; exit 1`, 0, `exit status 1: {"code": 7}`},
		{"nothing", `exit 1`, 0, "exit status 1"},
		{"killed", `echo "half" >&2; kill -9 $$`, 0, "signal: killed: half"},
		{"too much", `for i in 1 2 3 4; do printf "%01000d" $i >&2; done; exit 1`, 0, "exit status 1: …" + strings.Repeat("0", 999) + "3" + strings.Repeat("0", 999) + "4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plugin")
			if err := os.WriteFile(path, []byte("#!/bin/sh\ncat >/dev/null\n"+tt.script), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Execute(path, "ADD", []byte("{}"))
			var said *types.Error
			if errors.As(err, &said) != (tt.code != 0) || said != nil && said.Code != tt.code || err.Error() != tt.want {
				t.Errorf("got %v, want code %d: %s", err, tt.code, tt.want)
			}
		})
	}
}
