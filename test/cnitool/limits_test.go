package cnitool

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestResourceLimits runs ADD and DEL with too few file descriptors, too short files, or too little
// memory (setrlimit(2)). It checks that ADD fails and leaves nothing, and that the next DEL without the
// limit removes what DEL has left.
func TestResourceLimits(t *testing.T) {
	for _, limit := range []string{"--nofile=3", "--nofile=6", "--nofile=8", "--nofile=10", "--fsize=0", "--fsize=4096", "--fsize=40000", "--as=400000000"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			newNode(t, everything, "nft").containers(1)
			before := setuptest.Dump(t)
			add, del := on("ADD", 1, everything), on("DEL", 1, everything)
			constrained := func(c call) answer {
				c.before = []string{"prlimit", limit}
				return c.run(t)
			}
			a := constrained(add)
			if a.err == nil {
				t.Fatal("ADD succeeded: the limit proves nothing")
			}
			if strings.HasPrefix(limit, "--as=") { // the Go runtime ends the process
				del.run(t).ok(t)
			} else if f := a.failed(t); f.Code == 0 || f.Msg == "" {
				t.Errorf("got %+v", f)
			}
			setuptest.Same(t, before, "ADD left traces")
			if held := leases(t); len(held) > 0 {
				t.Errorf("leases are left: %v", held)
			}
			add.run(t).ok(t)
			constrained(del) // fails with most limits
			del.run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
