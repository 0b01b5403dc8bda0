package cnitool

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestRulesetFlushedBeforeDelete runs "nft flush ruleset" during calls that delete rules, while a container
// on another bridge has rules in the same tables. The flush comes before the first transaction of
// the call in the first round, before the second transaction in the second round, and so on. The
// test checks that the call succeeds, and that DEL leaves nothing.
func TestRulesetFlushedBeforeDelete(t *testing.T) {
	t.Parallel()
	filtered := everything.with(object{"forwardChains": []string{"inet mine forward"}, "fastPath": "auto"})
	other := filtered.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	other = publishing(other, object{"hostPort": 9090, "containerPort": 80})
	isolated := filtered.with(object{"ingressPolicy": "isolated", "fastPath": false})
	for _, tt := range []struct {
		name string
		call call
	}{
		{"DEL", on("DEL", 1, filtered)},
		{"ADD of another policy", on("ADD", 3, publishing(isolated, object{"hostPort": 7070, "containerPort": 80}))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, filtered).containers(3)
			flush := func() {
				setuptest.Run(t, "nft", "flush", "ruleset")
				setuptest.DropForward(t, "iptables-nft", "ip6tables-nft")
				setuptest.Run(t, "nft", "add table inet mine; add chain inet mine forward { type filter hook forward priority 0; }")
			}
			flush()
			before := setuptest.Dump(t)
			for at, flushed := 1, true; flushed; at++ {
				on("ADD", 1, filtered).run(t).ok(t)
				on("ADD", 2, other).run(t).ok(t)
				sent := 0
				flushed = false
				a := tt.call.traced(t, func(c ptrace.Call) bool {
					if !sendsRules(c) {
						return true
					}
					if sent++; sent == at {
						flushed = true
						flush()
					}
					return true
				})
				if a.err != nil {
					t.Errorf("ruleset flushed before transaction %d: %v: %s", at, a.err, a.stdout)
				}
				on("DEL", 1, filtered).run(t).ok(t)
				on("DEL", 2, other).run(t).ok(t)
				on("DEL", 3, isolated).run(t).ok(t)
				if !setuptest.Same(t, before, "ruleset flushed before transaction %d, DEL left traces", at) {
					t.FailNow()
				}
			}
		})
	}
}

// sendsRules reports whether a system call sends a transaction to nf_tables.
func sendsRules(c ptrace.Call) bool {
	if c.Number != unix.SYS_WRITE || !strings.HasPrefix(c.File(), "socket:") {
		return false
	}
	header, err := c.Data(unix.NLMSG_HDRLEN)
	if err != nil {
		return false
	}
	// RTM_NEWLINK has the same number as NFNL_MSG_BATCH_BEGIN, but is longer.
	const longest = unix.NLMSG_HDRLEN + nl.SizeofNfgenmsg + unix.SizeofRtAttr + 4
	return binary.NativeEndian.Uint16(header[4:]) == unix.NFNL_MSG_BATCH_BEGIN && binary.NativeEndian.Uint32(header) <= longest
}

// TestSetFlushedBeforeDelete deletes some elements of a container's guard during its DEL: before the
// first transaction in the first round, before the second in the second round, and so on. A container
// on another bridge also has a guard, so DEL keeps the table. The test checks that this DEL alone
// deletes the other elements.
func TestSetFlushedBeforeDelete(t *testing.T) {
	t.Parallel()
	guarded := single.with(object{"ipspoofchk": true, "forward": "none"})
	other := guarded.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	newNode(t, guarded).containers(2)
	on("ADD", 2, other).run(t).ok(t)
	before := setuptest.Dump(t)
	for at, sent := 1, 1; sent >= at; at++ {
		on("ADD", 1, guarded).run(t).ok(t)
		sent = 0
		on("DEL", 1, guarded).traced(t, func(c ptrace.Call) bool {
			if sendsRules(c) {
				if sent++; sent == at {
					setuptest.Run(t, "sh", "-c", `e=$(nft list set bridge bridgeveth macs | grep -o '"`+portOf+`" . [0-9a-f:]*') && nft delete element bridge bridgeveth macs "{ $e }" && echo >>/run/deleted; true`)
				}
			}
			return true
		}).ok(t)
		if !setuptest.Same(t, before, "elements deleted before transaction %d, DEL left traces", at) {
			t.FailNow()
		}
	}
	if _, err := os.Stat("/run/deleted"); err != nil {
		t.Errorf("no element was deleted: %v", err)
	}
}
