package cnitool

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestKilledFirst kills the first ADD of a host, the one that makes bridge and rules
// and starts programs, each time a little later. TestKilled has the others.
func TestKilledFirst(t *testing.T) {
	t.Parallel()
	newNode(t, dual, "nft", "legacy").containers(1)
	before := setuptest.Dump(t)
	start := time.Now()
	on("ADD", 1, dual).run(t).ok(t)
	whole := time.Since(start)
	on("DEL", 1, dual).run(t).ok(t)

	const tries = 12
	killed := 0
	for try := range tries {
		after := whole * time.Duration(try) / tries
		cmd := on("ADD", 1, dual).command(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill() // it may have ended
		if cmd.Wait() != nil {
			killed++
		}
		awaitNoIPTables(t)
		if try%2 == 1 {
			if again := on("ADD", 1, dual).run(t); again.err != nil {
				// It had done everything but print.
				if f := again.failed(t); f.Code != 101 {
					t.Errorf("killed after %s: a repeated ADD fails: %+v", after, f)
				}
			}
		}
		on("DEL", 1, dual).run(t).ok(t)
		if !setuptest.Same(t, before, "killed after %s, DEL left traces", after) {
			t.FailNow()
		}
		if held := leases(t); len(held) > 0 {
			t.Fatalf("killed after %s: leases are left: %v", after, held)
		}
	}
	if killed < tries/3 {
		t.Errorf("killed only %d times", killed)
	}
}

// TestKilledBetweenMessages kills the first ADD of a host before each message to the kernel
// that it writes itself: what is made by one and marked by the next is found again.
func TestKilledBetweenMessages(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"forward": "none"})
	newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	for at := 1; ; at++ {
		c := on("ADD", 1, conf)
		c.before = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write",
			"-e", fmt.Sprintf("inject=write:signal=KILL:when=%d", at)}
		done := c.run(t).err == nil
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "killed at message %d, DEL left traces", at) {
			t.FailNow()
		}
		if !done {
			continue
		}
		if at < 20 {
			t.Errorf("it writes only %d messages", at-1)
		}
		return
	}
}

// awaitNoIPTables waits until the iptables that a killed ADD was running, if any, is
// done in our namespace: nobody kills that one.
func awaitNoIPTables(t testing.TB) {
	t.Helper()
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		running := false
		all, _ := os.ReadDir("/proc")
		for _, p := range all {
			name, err := os.ReadFile("/proc/" + p.Name() + "/comm")
			ns, _ := os.Readlink("/proc/" + p.Name() + "/ns/net")
			running = running || err == nil && ns == ours && strings.Contains(string(name), "tables")
		}
		if !running {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("iptables does not end")
}

// TestKilledBetweenPrograms kills the first ADD of a host, and its DEL, each time when
// it starts one program later: so rules of iptables-legacy are half made, or half taken away.
// Those of iptables-nft are one transaction.
func TestKilledBetweenPrograms(t *testing.T) {
	for _, verb := range []string{"ADD", "DEL"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			newNode(t, single, "legacy").containers(1)
			before := setuptest.Dump(t)
			for at := 1; ; at++ {
				killAt(t, at)
				if verb == "DEL" {
					on("ADD", 1, single).run(t).ok(t)
				}
				cmd := on(verb, 1, single).command(t)
				cmd.Env = append(cmd.Env, "PATH="+killers+":"+os.Getenv("PATH"))
				err := cmd.Run()
				if at%2 == 0 {
					on("ADD", 1, single).run(t)
				}
				on("DEL", 1, single).run(t).ok(t)
				if !setuptest.Same(t, before, "killed at program %d, DEL left traces", at) {
					t.FailNow()
				}
				if held := leases(t); len(held) > 0 {
					t.Fatalf("killed at program %d: leases are left: %v", at, held)
				}
				if err == nil {
					if at < 5 {
						t.Errorf("it starts only %d programs", at-1)
					}
					return
				}
			}
		})
	}
}

// killers is a folder with programs that kill whoever starts them.
const killers = "/run/killers"

// killAt puts iptables into the folder killers: each run of it does what it should,
// until one, counted from now, kills its parent instead.
func killAt(t testing.TB, at int) {
	t.Helper()
	if err := os.RemoveAll(killers); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(killers, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`#!/bin/sh
echo >>%[1]s/count
[ $(wc -l <%[1]s/count) -lt %[2]d ] || { kill -KILL $PPID; exit 1; }
exec /usr/sbin/$(basename $0) "$@"
`, killers, at)
	for _, program := range []string{"iptables", "iptables-nft", "iptables-legacy"} {
		if err := os.WriteFile(killers+"/"+program, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBridgeDeleted stops an ADD before each message to the kernel that it writes itself, deletes
// the bridge, and has it go on: it makes the bridge anew, and the container reaches its gateway.
func TestBridgeDeleted(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"forward": "none"})
	c := newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	deleted, late := 0, 0
	for at := 1; ; at++ {
		add := on("ADD", 1, conf)
		add.before = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write",
			"-e", fmt.Sprintf("inject=write:signal=STOP:when=%d", at)}
		cmd := add.command(t)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1) // which awaitStopped may put back
		go func() { ended <- cmd.Wait() }()
		pid := awaitStopped(t, cmd.Process.Pid, ended)
		if pid == 0 {
			if err := <-ended; err != nil {
				t.Fatalf("without a stop: %v: %s", err, said.String())
			}
			on("DEL", 1, conf).run(t).ok(t)
			break // it writes no more messages
		}
		was := strings.Contains(setuptest.Run(t, "sh", "-c", "ip link delete br0 2>/dev/null && echo deleted || true"), "deleted")
		if err := goOn(pid, ended); err != nil {
			t.Errorf("bridge deleted before message %d: %v: %s", at, err, said.String())
		}
		if was {
			deleted++
			if !setuptest.Ping(t, c[0], "10.88.0.1") {
				late++ // when packets had passed already
			}
		}
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "bridge deleted before message %d, DEL left traces", at) {
			t.FailNow()
		}
	}
	if deleted < 10 || late > 3 {
		t.Errorf("the bridge was deleted %d times, %d times too late for ADD to see", deleted, late)
	}
}

// awaitStopped waits until the process that strace runs is stopped, and returns its number, or
// 0 if strace has ended.
func awaitStopped(t *testing.T, strace int, ended chan error) (pid int) {
	t.Helper()
	for {
		select {
		case err := <-ended:
			ended <- err
			return 0
		case <-time.After(time.Millisecond):
		}
		all, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			stat, _ := os.ReadFile(path) // it may have ended
			pid, about, _ := strings.Cut(string(stat), " ")
			// A process that is traced is in state t when it is stopped, and for a moment at each
			// of its system calls.
			if strings.HasPrefix(about, fmt.Sprintf("(bridgeveth) t %d ", strace)) {
				number, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				return number
			}
		}
	}
}

// goOn continues a process, as often as it stops, and waits for its end.
func goOn(pid int, ended chan error) error {
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Millisecond):
			_ = unix.Kill(pid, unix.SIGCONT) // it may have ended
		}
	}
}
