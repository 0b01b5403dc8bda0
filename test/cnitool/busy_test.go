package cnitool

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// list is a list of links or rules that a program reads from the kernel by netlink.
type list struct {
	change      func() // changes the list
	requests    int    // how often the program has requested the list
	interrupted int    // the last of these requests whose answer was interrupted; 0 if none was
}

// interruption interrupts each list that a program reads: it changes the list while the program reads
// it. The kernel then sets NLM_F_DUMP_INTR in the rest of its answer.
type interruption struct {
	t       *testing.T
	changes map[uint16]func() // the changes of each kind of list, by the type of the request
	lists   map[string]*list  // by the whole request, without its number
	now     map[string]*list  // the list that the program reads from each socket
	number  map[string]uint32 // the number of the last request on each socket
	last    ptrace.Call       // the last read of a list
}

// before observes a system call of the program (see ptrace.Run). It changes a list before the first
// read of the answer, because the kernel has then produced the first part of the answer. If the
// program requests the same list again, before does not change the list again.
func (i *interruption) before(c ptrace.Call) bool {
	i.readFlag()
	socket := c.File()
	if !strings.HasPrefix(socket, "socket:") {
		return true
	}
	switch c.Number {
	case unix.SYS_WRITE, unix.SYS_SENDTO:
		request, err := c.Data(int(c.Args[2]))
		if err != nil {
			i.t.Fatal(err)
		}
		i.send(socket, request)
	case unix.SYS_READ, unix.SYS_RECVFROM:
		if l := i.now[socket]; l != nil {
			if l.change != nil {
				l.change()
				l.change = nil
			}
			i.last = c
		}
	}
	return true
}

// send notes which list the program requests.
func (i *interruption) send(socket string, request []byte) {
	kind, flags := binary.NativeEndian.Uint16(request[4:]), binary.NativeEndian.Uint16(request[6:])
	i.now[socket], i.number[socket] = nil, binary.NativeEndian.Uint32(request[8:])
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		return
	}
	key := fmt.Sprintf("%d %q", kind, request[unix.NLMSG_HDRLEN:])
	if i.lists[key] == nil {
		i.lists[key] = &list{change: i.changes[kind]}
	}
	i.now[socket] = i.lists[key]
	i.lists[key].requests++
}

// readFlag reads the flag in the message that the last read has returned. If this read has not
// returned yet, its buffer holds an older message, which has another number.
func (i *interruption) readFlag() {
	socket := i.last.File()
	message, err := i.last.Data(unix.NLMSG_HDRLEN)
	if l := i.now[socket]; l != nil && err == nil && binary.NativeEndian.Uint32(message[8:]) == i.number[socket] &&
		binary.NativeEndian.Uint16(message[6:])&unix.NLM_F_DUMP_INTR != 0 {
		l.interrupted = l.requests
	}
}

// toggle returns a function that runs one of two commands in turn.
func toggle(t *testing.T, on, off string) func() {
	t.Helper()
	return func() {
		setuptest.Run(t, "sh", "-ec", on)
		on, off = off, on
	}
}

// TestBusyHost changes links and rules while bridgeveth reads lists of them. bridgeveth must read
// every interrupted list again.
func TestBusyHost(t *testing.T) {
	t.Parallel()
	newNode(t, everything, "nft").containers(3)
	on("ADD", 2, publishing(everything, object{"hostPort": 7000, "containerPort": 80})).run(t).ok(t)
	// The kernel needs several parts only for a long list.
	setuptest.Run(t, "sh", "-ec", "for i in $(seq 20); do ip link add foreign$i type veth peer name eth$i netns c3; ip link set foreign$i master br0; done")
	before := setuptest.Dump(t)
	changes := map[uint16]func(){unix.RTM_GETLINK: toggle(t, "ip link add busy type bridge", "ip link delete busy")}
	changeRules := toggle(t, "nft add table inet busy", "nft delete table inet busy")
	for _, message := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSETELEM} {
		changes[unix.NFNL_SUBSYS_NFTABLES<<8|message] = changeRules
	}
	interrupted := map[string]bool{} // kinds of lists
	during := func(what string, run func(before func(ptrace.Call) bool)) {
		i := &interruption{t: t, changes: changes, lists: map[string]*list{}, now: map[string]*list{}, number: map[string]uint32{}}
		run(i.before)
		for request, l := range i.lists {
			if l.interrupted == l.requests {
				t.Errorf("%s: the list was interrupted, but not read again: %s", what, request)
			}
			if l.interrupted > 0 {
				kind, _, _ := strings.Cut(request, " ")
				interrupted[kind] = true
			}
		}
	}
	plugin := func(c call) (a answer) {
		during(c.verb, func(before func(ptrace.Call) bool) { a = c.traced(t, before).ok(t) })
		return a
	}
	added := plugin(on("ADD", 1, everything))
	plugin(on("CHECK", 1, checking(everything, added)))
	during("bvctl repair", func(before func(ptrace.Call) bool) {
		if said := tracedBvctl(t, before, "repair"); said != "nothing was missing\n" {
			t.Errorf("bvctl repair: %s", said)
		}
	})
	plugin(on("DEL", 1, everything))
	on("ADD", 1, everything).run(t).ok(t)
	plugin(call{verb: "GC", conf: everything.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c2", "ifname": "eth0"}}})})
	setuptest.Run(t, "sh", "-c", "ip link delete busy; nft delete table inet busy; true")
	setuptest.Same(t, before, "GC left traces")
	for _, kind := range []int{unix.RTM_GETLINK, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE} {
		if !interrupted[fmt.Sprint(kind)] {
			t.Errorf("no list of type %d was interrupted: the test proves nothing", kind)
		}
	}
}

// tracedBvctl runs bvctl as call.traced does, and returns its output.
func tracedBvctl(t *testing.T, before func(ptrace.Call) bool, args ...string) string {
	t.Helper()
	a := bvctlCall(args...).traced(t, before).ok(t)
	return string(a.stdout) + string(a.stderr)
}

// TestBusySet deletes host ports of one container while bvctl reads the host ports of all
// containers. bvctl must list all host ports of the other container. The kernel does not say that
// the list of a set was interrupted: it counts the elements that it has listed, and then skips as
// many of those that are left (nf_tables_dump_set in net/netfilter/nf_tables_api.c).
func TestBusySet(t *testing.T) {
	t.Parallel()
	const each = 400
	publish := func(first int) object {
		var ports []object
		for i := range each {
			ports = append(ports, object{"hostPort": first + i, "containerPort": 80})
		}
		return publishing(single, ports...)
	}
	newNode(t, single, "nft").containers(2)
	on("ADD", 1, publish(10000)).run(t).ok(t)
	on("ADD", 2, publish(20000)).run(t).ok(t)
	socket, deleted := "", false
	out := tracedBvctl(t, func(c ptrace.Call) bool {
		switch c.Number {
		case unix.SYS_WRITE:
			if request, err := c.Data(int(c.Args[2])); err == nil && strings.Contains(string(request), "\x00ports\x00") {
				socket = c.File()
			}
		case unix.SYS_READ:
			if c.File() == socket && !deleted {
				deleted = true
				on("DEL", 2, single).run(t).ok(t)
			}
		}
		return true
	}, "inspect", "-o", "json")
	if count := strings.Count(out, `"tcp *:1`); count != each || !deleted {
		t.Errorf("bvctl lists %d host ports of the container, want %d", count, each)
	}
}
