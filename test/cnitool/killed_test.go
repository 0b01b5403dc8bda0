package cnitool

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// killable returns the call for ptrace.KillEach. A call that is not traced must succeed. The calls
// return when no process that they have started runs any more.
func (c call) killable(t testing.TB) ptrace.Traced {
	return func(before func(ptrace.Call) bool) {
		t.Helper()
		if before == nil {
			c.run(t).ok(t)
		} else {
			c.traced(t, before)
		}
		awaitNoPrograms(t)
	}
}

// awaitNoPrograms waits until no other process runs in the test's host. A killed program may have
// left such processes behind.
func awaitNoPrograms(t testing.TB) {
	t.Helper()
	harness.Await(t, "an end of all programs", func() bool { return len(others(t)) == 0 })
}

// others returns the IDs of the other processes that run in the test's host.
func others(t testing.TB) (pids []string) {
	t.Helper()
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := os.ReadDir("/proc")
	for _, p := range all {
		pid, err := strconv.Atoi(p.Name())
		ns, _ := os.Readlink("/proc/" + p.Name() + "/ns/net")
		if err == nil && ns == ours && pid != os.Getpid() {
			pids = append(pids, p.Name())
		}
	}
	return pids
}

// TestKilledFirst kills the first ADD of a host, which makes all folders, tables and bridges, and
// starts programs. TestKilled kills a later ADD.
func TestKilledFirst(t *testing.T) {
	t.Parallel()
	newNode(t, dual, "nft", "legacy").containers(1)
	before := setuptest.Dump(t)
	first := true
	ptrace.KillEach(t, 10, ptrace.Killing{
		Prepare: func() {
			for _, dir := range []string{"/run", "/var/lib"} {
				setuptest.Run(t, "sh", "-c", "rm -rf "+dir+"/*simple* "+dir+"/bridgeveth*")
			}
		},
		Run: on("ADD", 1, dual).killable(t),
		Cure: func(before func(ptrace.Call) bool) {
			// In every second round, the runtime repeats the ADD. It fails if the killed ADD had
			// finished except for printing the result (code 101).
			if first = !first; first && before == nil {
				if again := on("ADD", 1, dual).run(t); again.err != nil && again.failed(t).Code != 101 {
					t.Errorf("a repeated ADD fails: %+v", again.failed(t))
				}
			}
			on("DEL", 1, dual).killable(t)(before)
		},
		Check: func(when string) {
			setuptest.Same(t, before, "%s: DEL left traces", when)
			if held := leases(t); len(held) > 0 {
				t.Errorf("%s: leases are left: %v", when, held)
			}
		},
	})
}

// TestKilledGC kills a GC that deletes two of three containers. It checks that the next GC, or a DEL
// of each container, deletes the rest of them, and nothing of the third container.
func TestKilledGC(t *testing.T) {
	t.Parallel()
	conf := everything.with(object{"runtimeConfig": object{}})
	for _, cure := range []string{"GC", "DEL"} {
		t.Run(cure, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(3)
			on("ADD", 1, conf).run(t).ok(t)
			on("ADD", 2, everything).run(t).ok(t)
			on("DEL", 2, everything).run(t).ok(t) // the rules of its host ports stay until the last DEL
			before, held := setuptest.Dump(t), leases(t)
			gc := call{verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c1", "ifname": "eth0"}}})}
			k := ptrace.Killing{
				Prepare: func() {
					on("ADD", 2, everything).run(t).ok(t)
					on("ADD", 3, conf).run(t).ok(t)
				},
				Run: gc.killable(t), Cure: gc.killable(t),
				Check: func(when string) {
					setuptest.Same(t, before, "%s: traces are left", when)
					if diff := cmp.Diff(held, leases(t)); diff != "" {
						t.Errorf("%s: leases (-before +after):\n%s", when, diff)
					}
				},
			}
			if cure == "DEL" {
				k.Cure = func(before func(ptrace.Call) bool) {
					on("DEL", 2, conf).killable(t)(before)
					on("DEL", 3, conf).killable(t)(before)
				}
			}
			ptrace.KillEach(t, 6, k)
		})
	}
}

// TestKilledRepair kills `bvctl repair` and `bvctl doctor --fix` on a host whose rules, gateways and
// ports somebody has changed. It checks that the next repair restores everything, each rule once.
func TestKilledRepair(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rounds int
		args   []string
	}{{6, []string{"repair"}}, {4, []string{"doctor", "--fix", "/run/netns/c1", "10.88.0.1"}}} {
		t.Run(tt.args[0], func(t *testing.T) {
			t.Parallel()
			n := newNode(t, everything.with(object{"runtimeConfig": object{}, "capabilities": object{"portMappings": true, "bandwidth": true}}), "nft")
			c := n.containers(2)
			n.must("add", c[1])
			n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "bandwidth": {"ingressRate": 20000000, "ingressBurst": 800000}}`}
			n.must("add", c[0])
			var want string
			ptrace.KillEach(t, tt.rounds, ptrace.Killing{
				Prepare: func() {
					setuptest.Run(t, "sh", "-ec", `
nft flush ruleset
iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
ip addr flush dev br0
for p in $(ls /sys/class/net | grep ^veth); do ip link set $p nomaster; tc qdisc del dev $p root || true; done
echo 0 >/proc/sys/net/ipv4/ip_forward`)
				},
				Run: bvctlCall(tt.args...).killable(t), Cure: bvctlCall("repair").killable(t),
				Check: func(when string) {
					n.must("check", c[0])
					if want == "" {
						want = setuptest.Dump(t)
					}
					setuptest.Same(t, want, "%s: repair makes another host", when)
				},
			})
			n.must("del", c...)
		})
	}
}

// TestKilledTakeOver kills the first ADD after the store was deleted on a running host. This ADD
// takes over the reservations of host-local and the addresses of attached containers. The test
// checks that the next ADD takes over each address once, and leases none of them again.
func TestKilledTakeOver(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"forward": "none", "ipam": dual["ipam"].(object).with(object{"importFrom": "/var/lib/cni/networks"})})
	n := newNode(t, conf)
	n.must("add", n.containers(2)[0])
	setuptest.Run(t, "sh", "-ec", `mkdir -p /var/lib/cni/networks/net; printf 'running\r\neth0' >/var/lib/cni/networks/net/10.88.0.3`)
	ptrace.KillEach(t, 6, ptrace.Killing{
		Prepare: func() {
			on("DEL", 2, conf).run(t).ok(t)
			setuptest.Run(t, "rm", "-r", "/run/ipam-simple")
		},
		Run: on("ADD", 2, conf).killable(t), Cure: on("DEL", 2, conf).killable(t),
		Check: func(when string) {
			on("ADD", 2, conf).run(t).ok(t)
			held, single := leases(t), map[string]bool{}
			for _, l := range held {
				_, address, _ := strings.Cut(l, " ")
				address, _, _ = strings.Cut(address, "/")
				single[address] = true
			}
			if len(held) != 5 || len(single) != 5 || !single["10.88.0.2"] || !single["fd88::2"] || !slices.Contains(held, "running 10.88.0.3/32") {
				t.Errorf("%s: leases %v, want two of c1, one of running and two of c2", when, held)
			}
			if found, err := filepath.Glob("/run/ipam-simple/*"); len(found) != 1 || err != nil {
				t.Errorf("%s: files of the store: %v, %v", when, found, err)
			}
		},
	})
}

// TestKilledProgram kills an ADD while the iptables that adds its chain waits, as it does if another
// program holds the xtables lock. The test checks that a DEL waits for this iptables, and so leaves
// nothing.
func TestKilledProgram(t *testing.T) {
	t.Parallel()
	newNode(t, single, "legacy").containers(1)
	before := setuptest.Dump(t)
	if err := os.Mkdir(killers, 0o755); err != nil {
		t.Fatal(err)
	}
	setuptest.WriteProgram(t, killers+"/iptables-legacy", `#!/bin/sh
case "$*" in *"-N "*)
	>/run/waits
	while [ ! -e /run/free ]; do sleep 0.02; done
esac
exec /usr/sbin/iptables-legacy "$@"
`)
	start := func(verb string) (*os.Process, chan error) {
		cmd, ended := on(verb, 1, single).command(t), make(chan error, 1)
		cmd.Env = append(cmd.Env, "PATH="+killers+":"+os.Getenv("PATH"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- cmd.Wait() }()
		return cmd.Process, ended
	}
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	add, killed := start("ADD")
	harness.Await(t, "an iptables that waits", func() bool { return exists("/run/waits") })
	if err := add.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-killed; err == nil {
		t.Error("ADD has ended before the kill")
	}
	_, ended := start("DEL")
	harness.Await(t, "a DEL that waits or has ended", func() bool { return len(ended) > 0 || waitsForLock(t, "bridgeveth") })
	setuptest.Run(t, "touch", "/run/free")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	awaitNoPrograms(t)
	setuptest.Same(t, before, "DEL left traces")
}

// waitsForLock reports whether a program with this beginning of its name waits in flock(2), in the
// test's host. In a process namespace, /proc/locks hides those who wait for the lock of a killed
// process (locks_show in fs/locks.c), so waitsForLock reads the system calls of the threads.
func waitsForLock(t testing.TB, name string) bool {
	t.Helper()
	return slices.ContainsFunc(others(t), func(pid string) bool {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		if !strings.HasPrefix(string(comm), name) {
			return false
		}
		calls, err := filepath.Glob("/proc/" + pid + "/task/*/syscall")
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(calls, func(file string) bool {
			call, _ := os.ReadFile(file) // fails if the thread has ended
			return strings.HasPrefix(string(call), fmt.Sprint(unix.SYS_FLOCK, " "))
		})
	})
}
