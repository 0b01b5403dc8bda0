package cnitool

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestKilledBetweenMessages kills the first ADD of a host: before its first message in the first
// round, before its second message in the second round, and so on. It checks that DEL also removes
// parts that ADD has made, but not yet marked as its own, for example a link without an alias.
func TestKilledBetweenMessages(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"forward": "none"})
	newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	at := 1
	for killed := true; killed; at++ {
		killed = on("ADD", 1, conf).killedAt(t, at)
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "killed at message %d, DEL left traces", at) {
			t.FailNow()
		}
	}
	if at < 20 {
		t.Errorf("ADD sends only %d messages", at-2)
	}
}

// TestAddAfterKilled kills the first ADD of a host in the same rounds as TestKilledBetweenMessages,
// and repeats the ADD. It checks that CHECK then finds everything that ADD makes.
func TestAddAfterKilled(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"forward": "none"})
	newNode(t, conf, "nft").containers(1)
	for at, killed := 1, true; killed; at++ {
		killed = on("ADD", 1, conf).killedAt(t, at)
		if !portUp(t) { // otherwise the killed ADD had finished except for printing the result
			again := on("ADD", 1, conf).run(t).ok(t)
			check := on("CHECK", 1, checking(conf, again)).run(t)
			if check.err != nil {
				t.Errorf("killed at message %d: CHECK after the next ADD: %s", at, check.stdout)
			}
		}
		on("DEL", 1, conf).run(t).ok(t)
	}
	noLeases(t)
}

// killedAt calls the plugin, and kills it before one of its messages. The parameter at is the
// number of this message, from 1 on. killed is false if the plugin sends fewer messages.
func (c call) killedAt(t *testing.T, at int) (killed bool) {
	t.Helper()
	sent := 0
	return c.traced(t, func(p ptrace.Call) bool {
		if sends(p) {
			sent++
		}
		return sent < at
	}).err != nil
}

// sends reports whether a system call sends a message: a netlink request, a write to a file such as
// a sysctl, or the output of the result. The Go runtime's writes to its own eventfd do not count.
func sends(c ptrace.Call) bool {
	switch c.Number {
	case unix.SYS_WRITE, unix.SYS_SENDTO, unix.SYS_SENDMSG:
		return !strings.HasPrefix(c.File(), "anon_inode:")
	}
	return false
}

// TestKilledBetweenPrograms kills the first ADD of a host, or its DEL, when it starts a program:
// the first program in the first round, the second program in the second round, and so on. The kill
// leaves only some of the rules of iptables-legacy. (The rules of iptables-nft are written in one
// transaction.) The test checks that DEL then removes everything.
func TestKilledBetweenPrograms(t *testing.T) {
	t.Parallel()
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
						t.Errorf("the verb starts only %d programs", at-1)
					}
					return
				}
			}
		})
	}
}

// killers is a folder with scripts that kill the process that starts them.
const killers = "/run/killers"

// killAt writes a script for each iptables program into the folder killers. The scripts count how
// often the plugin starts a script. When the count is equal to the parameter at, the script kills
// the plugin. Until then, the scripts run the real programs.
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
		setuptest.WriteProgram(t, killers+"/"+program, script)
	}
}

// TestBridgeDeleted deletes the bridge during an ADD: before the first message of the ADD in the
// first round, before the second message in the second round, and so on. It checks that ADD makes
// the bridge again, and that the container reaches its gateway. ADD checks the bridge for the last
// time right after it has set the port up. ADD does not notice a later deletion, so the test then
// does not check the gateway.
func TestBridgeDeleted(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"forward": "none"})
	c := newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	deleted, last := 0, 0
	for at := 1; ; at++ {
		sent, there, up, looked := 0, false, false, false
		a := on("ADD", 1, conf).traced(t, func(c ptrace.Call) bool {
			if !sends(c) {
				return true
			}
			sent++
			if sent <= at {
				looked = up // the port was already up when the preceding message was sent
				up = portUp(t)
			}
			if sent == at {
				if _, err := os.Stat("/sys/class/net/br0"); err == nil {
					there = true
					setuptest.Run(t, "ip", "link", "delete", "br0")
				}
			}
			return true
		})
		if a.err != nil {
			t.Errorf("bridge deleted before message %d: %v: %s", at, a.err, a.stdout)
		}
		if there {
			deleted++
			if up && !looked {
				last++
			}
			if !looked && !setuptest.Ping(t, c[0], "10.88.0.1") {
				t.Errorf("bridge deleted before message %d: no answer from the gateway", at)
			}
		}
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "bridge deleted before message %d, DEL left traces", at) {
			t.FailNow()
		}
		if sent < at {
			break
		}
	}
	if deleted < 10 || last == 0 {
		t.Errorf("the bridge was deleted %d times, and %d times between the port being set up and the next message", deleted, last)
	}
}

// TestTablesDeleted deletes bridgeveth's tables during an ADD, as "nft flush ruleset" does. The
// rounds are those of TestBridgeDeleted. The test checks that ADD nevertheless succeeds, and that
// DEL leaves nothing.
func TestTablesDeleted(t *testing.T) {
	t.Parallel()
	conf := publishing(single.with(object{"forward": "none", "ipspoofchk": true}), object{"hostPort": 8080, "containerPort": 80})
	newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	deleted := 0
	for at := 1; ; at++ {
		sent := 0
		a := on("ADD", 1, conf).traced(t, func(c ptrace.Call) bool {
			if !sends(c) {
				return true
			}
			if sent++; sent == at {
				for _, family := range []string{"ip", "bridge"} {
					if exec.Command("nft", "delete", "table", family, "bridgeveth").Run() == nil {
						deleted++
					}
				}
			}
			return true
		})
		if a.err != nil {
			t.Errorf("tables deleted before message %d: %v: %s", at, a.err, a.stdout)
		}
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "tables deleted before message %d, DEL left traces", at) {
			t.FailNow()
		}
		if sent < at {
			break
		}
	}
	if deleted < 10 {
		t.Errorf("%d tables were deleted", deleted)
	}
}

// TestTablesDeletedShared deletes bridgeveth's table during an ADD, as TestTablesDeleted does, while a
// container on another bridge has host ports. ADD then finds the maps of host ports, and another
// program deletes the maps before ADD adds its rules.
func TestTablesDeletedShared(t *testing.T) {
	t.Parallel()
	conf := publishing(single.with(object{"forward": "none"}), object{"hostPort": 8080, "containerPort": 80})
	other := publishing(conf.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}}), object{"hostPort": 9090, "containerPort": 80})
	newNode(t, conf, "nft").containers(2)
	before := setuptest.Dump(t)
	for at, sent := 1, 1; sent >= at; at++ {
		on("ADD", 2, other).run(t).ok(t)
		sent = 0
		a := on("ADD", 1, conf).traced(t, func(c ptrace.Call) bool {
			if !sends(c) {
				return true
			}
			if sent++; sent == at {
				setuptest.Run(t, "nft", "delete", "table", "ip", "bridgeveth")
			}
			return true
		})
		if a.err != nil {
			t.Errorf("table deleted before message %d: %v: %s", at, a.err, a.stdout)
		}
		on("DEL", 1, conf).run(t).ok(t)
		on("DEL", 2, other).run(t).ok(t)
		if !setuptest.Same(t, before, "table deleted before message %d, DEL left traces", at) {
			t.FailNow()
		}
	}
}

// TestRulesetFlushed runs "nft flush ruleset" during an ADD, on a host whose FORWARD chain denies
// packets, and with the chains of Docker to which rules of bridgeveth jump. The rounds are those of
// TestBridgeDeleted. The test checks that ADD nevertheless succeeds, and that DEL leaves nothing.
func TestRulesetFlushed(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	addDocker := func() {
		setuptest.Run(t, "sh", "-ec", "iptables-nft -N DOCKER-ISOLATION-STAGE-1; iptables-nft -N DOCKER-ISOLATION-STAGE-2; iptables-nft -A FORWARD -j DOCKER-ISOLATION-STAGE-1")
	}
	addDocker()
	before := setuptest.Dump(t)
	for at, sent := 1, 1; sent >= at; at++ {
		sent = 0
		a := on("ADD", 1, single).traced(t, func(c ptrace.Call) bool {
			if !sends(c) {
				return true
			}
			if sent++; sent == at {
				setuptest.Run(t, "nft", "flush", "ruleset")
			}
			return true
		})
		if a.err != nil {
			t.Errorf("ruleset flushed before message %d: %v: %s", at, a.err, a.stdout)
		}
		on("DEL", 1, single).run(t).ok(t)
		setuptest.DropForward(t, "iptables-nft", "ip6tables-nft")
		if sent >= at { // the flush has deleted the chains
			addDocker()
		}
		if !setuptest.Same(t, before, "ruleset flushed before message %d, DEL left traces", at) {
			t.FailNow()
		}
	}
}

// portUp reports whether the port of container number 1 exists and is up.
func portUp(t *testing.T) bool {
	t.Helper()
	flags, err := os.ReadFile("/sys/class/net/" + portOf + "/flags")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	var value uint64
	if err == nil {
		value, err = strconv.ParseUint(strings.TrimSpace(string(flags)), 0, 32)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value&unix.IFF_UP != 0
}
