package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestResourceLimits runs ADD and DEL with too few file descriptors, too short files, or too little
// memory (setrlimit(2)). It checks that ADD fails and leaves nothing, and that the next DEL without the
// limit removes what DEL has left.
func TestResourceLimits(t *testing.T) {
	t.Parallel()
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

// TestFullRun fills /run, which has the leases. The first ADD of the host must fail with code 5 and leave
// nothing. If /run becomes full later, CHECK, DEL and GC must succeed.
func TestFullRun(t *testing.T) {
	t.Parallel()
	newNode(t, everything, "nft", "legacy").containers(2)
	if err := unix.Mount("none", "/run", "", unix.MS_REMOUNT, "size=2m"); err != nil {
		t.Fatal(err)
	}
	before := setuptest.Dump(t)
	setuptest.FillDisk(t, "/run/filler")
	if f := on("ADD", 1, everything).run(t).failed(t); f.Code != types.ErrIOFailure || !strings.Contains(f.Msg, "no space left") {
		t.Errorf("got %+v, want code 5 and \"no space left\"", f)
	}
	setuptest.Same(t, before, "a failed ADD left traces")
	empty := func() {
		if err := os.Remove("/run/filler"); err != nil {
			t.Fatal(err)
		}
	}
	empty()
	noLeases(t)
	added := on("ADD", 1, everything).run(t).ok(t)
	on("ADD", 2, publishing(everything, object{"hostPort": 7000, "containerPort": 80})).run(t).ok(t)
	setuptest.FillDisk(t, "/run/filler")
	on("CHECK", 1, checking(everything, added)).run(t).ok(t)
	on("DEL", 1, everything).run(t).ok(t)
	call{verb: "GC", conf: everything.with(object{"cni.dev/valid-attachments": []object{}})}.run(t).ok(t)
	setuptest.Same(t, before, "DEL and GC left traces")
	empty()
	noLeases(t)
}

// TestReadsFail makes one read of CHECK, GC or bvctl repair fail at a time, as if the socket had no room for
// the kernel's answer. CHECK and repair must change nothing on a complete host. GC must succeed, or the next
// GC must remove what it has left.
func TestReadsFail(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"CHECK", "GC", "repair"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			newNode(t, everything, "nft").containers(1)
			empty := setuptest.Dump(t)
			gc := call{verb: "GC", conf: everything.with(object{"cni.dev/valid-attachments": []object{}})}
			refused := 0
			for at, failed := 1, 1; failed > 0; at += 9 {
				c := gc
				added := on("ADD", 1, everything).run(t).ok(t)
				before := setuptest.Dump(t)
				switch verb {
				case "CHECK":
					c = on("CHECK", 1, checking(everything, added))
				case "repair":
					c = bvctlCall("repair")
				}
				var a answer
				if a, failed = failing(t, c, "read", "ENOBUFS", at); a.err != nil {
					refused++
					if said := string(a.stdout) + string(a.stderr); !strings.Contains(said, "no buffer space available") {
						t.Errorf("%s: read number %d fails: the message does not say why: %s", verb, at, said)
					}
				}
				if verb != "GC" {
					setuptest.Same(t, before, "%s: read number %d fails: it changed something", verb, at)
				} else if a.err == nil {
					setuptest.Same(t, empty, "read number %d fails: GC succeeded and left traces", at)
				}
				gc.run(t).ok(t)
				if !setuptest.Same(t, empty, "%s: read number %d fails: the next GC left traces", verb, at) {
					t.FailNow()
				}
				noLeases(t)
			}
			if refused == 0 {
				t.Errorf("no %s failed", verb)
			}
		})
	}
}
