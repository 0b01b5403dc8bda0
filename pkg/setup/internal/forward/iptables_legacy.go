package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Socket options, sizes and offsets of the interface between iptables-legacy and
// the kernel: linux/netfilter/x_tables.h, linux/netfilter_ipv4/ip_tables.h and
// linux/netfilter_ipv6/ip6_tables.h, on 64-bit machines. All numbers are bytes.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES

	infoSize      = 84 // struct ipt_getinfo
	infoForward   = 44 // its hook_entry[NF_INET_FORWARD]
	infoOutput    = 48 // its hook_entry[NF_INET_LOCAL_OUT]
	infoTotal     = 80 // its size
	entriesHeader = 40 // struct ipt_get_entries, before entrytable
	entriesTotal  = 32 // its size

	extensionName  = 2   // name in struct xt_entry_match and xt_entry_target, after their size
	extensionData  = 32  // what follows either
	nameSize       = 29  // XT_EXTENSION_MAXNAMELEN
	conntrackState = 150 // state_mask in struct xt_conntrack_mtinfo3

	verdictDrop   = -1 // -NF_DROP - 1
	verdictAccept = -2 // -NF_ACCEPT - 1; from 0 on a verdict is the offset of a chain's first rule
)

// entryLayout says where a family's struct ipt_entry or ip6t_entry, which a rule
// begins with, keeps things.
type entryLayout struct {
	inet, level int    // for socket(2) and getsockopt(2)
	names       string // the list of tables in use, below /proc/net
	addresses   int    // how long source, destination and their masks are, from 0 on
	in, out     int    // interfaces, IFNAMSIZ each; their masks are as long, and follow
	conditions  [2]int // protocol, flags and inversions: from, to
	target      int    // where target_offset is; next_offset follows
	matches     int    // struct ipt_entry's own size
}

var (
	layout4 = entryLayout{unix.AF_INET, unix.SOL_IP, "ip_tables_names", 16, 16, 32, [2]int{80, 84}, 88, 112}
	layout6 = entryLayout{unix.AF_INET6, unix.SOL_IPV6, "ip6_tables_names", 64, 64, 80, [2]int{128, 133}, 140, 168}
)

// readLegacy reads the filter table of iptables-legacy, if it is in force. Asking
// the kernel for a table makes it, so the list of those in use comes first. Within
// a user namespace nobody may read that; there a table that is as the kernel makes
// it counts as none.
func readLegacy(n *netns.Namespace, family int) (xtables, error) {
	t := xtables{flavour: "legacy", family: family}
	layout := layout4
	if family == unix.AF_INET6 {
		layout = layout6
	}
	err := n.Do(func() error {
		// /proc/net would be the main thread's.
		names, err := files.Read("/proc/thread-self/net/" + layout.names)
		unknown := errors.Is(err, os.ErrPermission)
		if err != nil && !unknown && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("list tables of iptables-legacy: %w", err)
		}
		if t.inForce = unknown || slices.Contains(strings.Fields(string(names)), filterTable); !t.inForce {
			return nil
		}
		info, table, err := layout.fetch()
		if err == nil {
			t.forward, t.own, t.docker = layout.parse(info, table)
		}
		untouched := len(t.forward) == 1 && t.forward[0].target == accept || errors.Is(err, unix.ENOPROTOOPT)
		if unknown && untouched {
			t.inForce, err = false, nil
		}
		return err
	})
	return t, err
}

// fetch returns struct ipt_getinfo and the entries of the filter table.
func (l entryLayout) fetch() (info, table []byte, err error) {
	fd, err := unix.Socket(l.inet, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, fmt.Errorf("open socket for iptables-legacy: %w", err)
	}
	defer unix.Close(fd)
	for {
		info = make([]byte, infoSize)
		copy(info, filterTable)
		if err := getsockopt(fd, l.level, soGetInfo, info); err != nil {
			return nil, nil, fmt.Errorf("read table filter of iptables-legacy: %w", err)
		}
		total := binary.NativeEndian.Uint32(info[infoTotal:])
		table = make([]byte, entriesHeader+total)
		copy(table, filterTable)
		binary.NativeEndian.PutUint32(table[entriesTotal:], total)
		err := getsockopt(fd, l.level, soGetEntries, table)
		if err == nil {
			return info, table[entriesHeader:], nil
		}
		if !errors.Is(err, unix.EAGAIN) { // EAGAIN: it grew or shrank meanwhile
			return nil, nil, fmt.Errorf("read rules of iptables-legacy: %w", err)
		}
	}
}

// parse returns the rules of FORWARD and of our chain, each with the entry that
// ends it, which is the policy or a return, and whether there is Docker's. Before a chain that is not built in is
// an entry whose target is called ERROR and holds the chain's name.
func (l entryLayout) parse(info, table []byte) (forward, own []rule, docker bool) {
	chainAt := map[int]string{
		int(binary.NativeEndian.Uint32(info[infoForward:])): forwardBase,
		int(binary.NativeEndian.Uint32(info[infoOutput:])):  "OUTPUT",
	}
	l.each(table, func(_, next int, _, target []byte) {
		if netns.Text(target[extensionName:], nameSize) == "ERROR" {
			chainAt[next] = netns.Text(target[extensionData:], nameSize)
			docker = docker || chainAt[next] == dockerDrops
		}
	})
	chain := ""
	l.each(table, func(at, _ int, entry, target []byte) {
		if name, begins := chainAt[at]; begins {
			chain = name
		} else if netns.Text(target[extensionName:], nameSize) == "ERROR" {
			chain = ""
		}
		switch chain {
		case forwardBase:
			forward = append(forward, l.rule(entry, target, chainAt))
		case forwardChain:
			own = append(own, l.rule(entry, target, chainAt))
		}
	})
	return forward, own, docker
}

// each calls f with the offset of each entry and of the one after it, with the
// entry up to its target, and with the target.
func (l entryLayout) each(table []byte, f func(at, next int, entry, target []byte)) {
	for at := 0; at < len(table); {
		toTarget := int(binary.NativeEndian.Uint16(table[at+l.target:]))
		next := at + int(binary.NativeEndian.Uint16(table[at+l.target+2:]))
		f(at, next, table[at:at+toTarget], table[at+toTarget:next])
		at = next
	}
}

// rule reads one entry.
func (l entryLayout) rule(entry, target []byte, chainAt map[int]string) (r rule) {
	var wildIn, wildOut bool
	r.in, wildIn = l.iface(entry, l.in)
	r.out, wildOut = l.iface(entry, l.out)
	r.other = wildIn || wildOut || !zero(entry[:l.addresses]) || !zero(entry[l.conditions[0]:l.conditions[1]])
	for m := entry[l.matches:]; len(m) > 0; m = m[binary.NativeEndian.Uint16(m):] {
		switch name := netns.Text(m[extensionName:], nameSize); {
		case name == "conntrack" && int(binary.NativeEndian.Uint16(m)) >= extensionData+conntrackState+2:
			r.states = binary.NativeEndian.Uint16(m[extensionData+conntrackState:])
		case name != "comment":
			r.other = true
		}
	}
	if r.target = netns.Text(target[extensionName:], nameSize); r.target == "" { // the standard target
		switch verdict := int(int32(binary.NativeEndian.Uint32(target[extensionData:]))); {
		case verdict == verdictDrop:
			r.target = deny
		case verdict == verdictAccept:
			r.target = accept
		case verdict >= 0:
			r.target = chainAt[verdict]
		}
	}
	return r
}

// iface reads an interface's name. wild says that it is only a beginning, as in
// "eth+": the mask of a whole name covers the zero byte after it.
func (l entryLayout) iface(entry []byte, at int) (name string, wild bool) {
	name = netns.Text(entry[at:], unix.IFNAMSIZ)
	mask := entry[at+l.out-l.in+unix.IFNAMSIZ:]
	return name, name != "" && len(name) < unix.IFNAMSIZ && mask[len(name)] == 0
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// getsockopt is getsockopt(2) with a buffer that is read and written.
func getsockopt(fd, level, option int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
