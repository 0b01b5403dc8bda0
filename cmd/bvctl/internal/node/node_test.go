package node

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
)

// TestNode checks "bvctl node" in three cases: the agent answers, another program answers, and
// nothing answers.
func TestNode(t *testing.T) {
	const text = "node n1, MTU of new pods 1450\n"
	for _, tt := range []struct {
		name    string
		code    int // HTTP status; 0 means that no program listens
		out     string
		failure string // part of the error's text
	}{
		{"ready", http.StatusOK, text, ""},
		{"not ready", http.StatusServiceUnavailable, text, cli.ErrUnhealthy.Error()},
		{"another program", http.StatusNotFound, "", "answers 404 Not Found; start bridgeveth-node on this node, or set the address of its --listen"},
		{"no agent", 0, "", "connection refused; start bridgeveth-node on this node, or set the address of its --listen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/node" {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(tt.code)
				fmt.Fprint(w, text)
			}))
			defer server.Close()
			if tt.code == 0 {
				server.Close()
			}
			cmd, out := New(nil), &bytes.Buffer{}
			cmd.SilenceUsage, cmd.SilenceErrors = true, true
			cmd.SetOut(out)
			cmd.SetArgs([]string{"--agent", strings.TrimPrefix(server.URL, "http://")})
			err := cmd.Execute()
			failure := ""
			if err != nil {
				failure = err.Error()
			}
			if out.String() != tt.out || !strings.HasSuffix(failure, tt.failure) || tt.failure == "" && err != nil {
				t.Errorf("got %q, %v", out, err)
			}
			if unhealthy := tt.code == http.StatusServiceUnavailable; errors.Is(err, cli.ErrUnhealthy) != unhealthy {
				t.Errorf("exit status: %v", err)
			}
		})
	}
}
