package cnitool

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// everything is the configuration of a network that uses all features, so that ADD takes all of its
// steps.
var everything = limited(publishing(dual.with(object{
	"ipspoofchk": true, "ingressPolicy": "same-bridge", "masqExclude": []string{"203.0.113.0/24"}, "sysctl": object{"net.ipv4.conf.IFNAME.rp_filter": "2"},
}), object{"hostPort": 8080, "containerPort": 80}, object{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}), limits)

// failing runs a call of the plugin under strace. In each thread, strace makes one system call of
// the given kind fail. The parameter at is the number of this system call, from 1 on. failed is the
// number of system calls that have failed.
func failing(t *testing.T, c call, syscall, errno string, at int) (a answer, failed int) {
	t.Helper()
	c.before = []string{"strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=" + syscall,
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", syscall, errno, at)}
	a = c.run(t)
	trace, err := os.ReadFile("/run/trace")
	if err != nil {
		t.Fatal(err)
	}
	return a, strings.Count(string(trace), "(INJECTED)")
}

// TestFailsAnywhere makes one system call of ADD fail at a time. It checks that ADD either succeeds
// nevertheless, or fails with a CNI error and leaves the host as it was before.
func TestFailsAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		syscall, errno string
		step           int
	}{
		{"openat", "EMFILE", 3}, {"setns", "EPERM", 1}, {"write", "EIO", 1}, {"read", "ENOBUFS", 7},
		{"pwrite64", "ENOSPC", 1}, {"flock", "ENOLCK", 1}, {"socket", "EMFILE", 1},
	} {
		t.Run(tt.syscall, func(t *testing.T) {
			t.Parallel()
			newNode(t, everything, "nft").containers(2)
			add, del := on("ADD", 1, everything), on("DEL", 1, everything)
			for _, first := range []bool{true, false} { // the ADD of the network's first container makes more system calls
				if !first {
					on("ADD", 2, publishing(everything, object{"hostPort": 7000, "containerPort": 80})).run(t).ok(t)
				}
				before := setuptest.Dump(t)
				refused := 0
				for at := 1; ; at += tt.step {
					a, failed := failing(t, add, tt.syscall, tt.errno, at)
					if failed == 0 {
						a.ok(t)
						del.run(t).ok(t)
						break // ADD makes fewer of these system calls
					}
					when := fmt.Sprintf("%s number %d fails, first container: %v", tt.syscall, at, first)
					if a.err != nil {
						refused++
						if tt.syscall != "write" { // ADD prints its error by write(2)
							if f := a.failed(t); f.Code == 0 || f.Msg == "" {
								t.Errorf("%s: got %+v", when, f)
							}
						}
					}
					if a.err == nil || failed > 1 { // if more than one system call has failed, the undo has failed too
						del.run(t).ok(t)
					}
					if !setuptest.Same(t, before, "%s: it left traces", when) {
						t.FailNow()
					}
					if held := leases(t); first && len(held) > 0 || len(held) > 2 {
						t.Fatalf("%s: leases are left: %v", when, held)
					}
				}
				if refused == 0 {
					t.Errorf("%s: no ADD failed", tt.syscall)
				}
			}
		})
	}
}

// TestInterrupted checks that an ADD succeeds if a signal interrupts the reservation of disk space.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	a, failed := failing(t, on("ADD", 1, single), "fallocate", "EINTR", 1)
	if failed != 1 {
		t.Errorf("%d calls of fallocate were interrupted, want 1: the test proves nothing", failed)
	}
	a.ok(t)
}

// TestInterruptedReads interrupts every second read(2) by a signal. It checks that each verb and bvctl
// repair succeed.
func TestInterruptedReads(t *testing.T) {
	t.Parallel()
	newNode(t, everything, "nft").containers(2)
	before := setuptest.Dump(t)
	strace := []string{"strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=read", "-e", "inject=read:error=EINTR:when=1+2"}
	interrupted := func(c call) answer {
		c.before = strace
		return c.run(t).ok(t)
	}
	added := interrupted(on("ADD", 1, everything))
	interrupted(on("CHECK", 1, checking(everything, added)))
	repair := append(slices.Clone(strace), filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "repair")
	if out := setuptest.Run(t, repair[0], repair[1:]...); out != "nothing was missing\n" {
		t.Errorf("bvctl repair: %s", out)
	}
	trace, err := os.ReadFile("/run/trace")
	if err != nil || strings.Count(string(trace), "(INJECTED)") < 10 {
		t.Errorf("%v: the trace of bvctl repair shows too few interrupted reads:\n%s", err, trace)
	}
	interrupted(on("DEL", 1, everything))
	setuptest.Same(t, before, "DEL left traces")
	on("ADD", 2, everything).run(t).ok(t)
	interrupted(call{verb: "GC", conf: everything.with(object{"cni.dev/valid-attachments": []object{}})})
	setuptest.Same(t, before, "GC left traces")
}

// TestDelFailsAnywhere makes one system call of DEL fail at a time. It checks that DEL's error
// contains none of the phrases that containerd takes for success, and that the next DEL removes
// everything.
func TestDelFailsAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		syscall, errno string
		step           int
	}{
		{"read", "ENOBUFS", 5}, {"openat", "ENOENT", 4}, {"openat", "EMFILE", 5}, {"pwrite64", "ENOSPC", 1}, {"flock", "ENOLCK", 1}, {"socket", "EMFILE", 1},
	} {
		t.Run(tt.syscall+" "+tt.errno, func(t *testing.T) {
			t.Parallel()
			newNode(t, everything, "nft", "legacy").containers(1)
			add, del := on("ADD", 1, everything), on("DEL", 1, everything)
			before := setuptest.Dump(t)
			refused := 0
			for at, failed := 1, 1; failed > 0; at += tt.step {
				add.run(t).ok(t)
				var a answer
				if a, failed = failing(t, del, tt.syscall, tt.errno, at); a.err != nil {
					refused++
					f := a.failed(t)
					for _, words := range []string{"not found", "no such file or directory"} {
						if strings.Contains(f.Msg+f.Details, words) {
							t.Errorf("%s number %d fails: %q is in %+v", tt.syscall, at, words, f)
						}
					}
				}
				del.run(t).ok(t)
				if !setuptest.Same(t, before, "%s number %d fails: it left traces", tt.syscall, at) {
					t.FailNow()
				}
				if held := leases(t); len(held) > 0 {
					t.Fatalf("%s number %d fails: leases are left: %v", tt.syscall, at, held)
				}
			}
			if refused == 0 {
				t.Errorf("%s: no DEL failed", tt.syscall)
			}
		})
	}
}
