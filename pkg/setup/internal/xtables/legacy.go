package xtables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Socket options of iptables-legacy, and sizes and offsets of their structures, in bytes on 64-bit
// machines: linux/netfilter/x_tables.h, linux/netfilter_ipv4/ip_tables.h and
// linux/netfilter_ipv6/ip6_tables.h.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES

	infoSize      = 84 // struct ipt_getinfo
	infoForward   = 44 // offset of hook_entry[NF_INET_FORWARD] in struct ipt_getinfo
	infoOutput    = 48 // offset of hook_entry[NF_INET_LOCAL_OUT]
	infoTotal     = 80 // offset of size
	entriesHeader = 40 // offset of entrytable in struct ipt_get_entries
	entriesTotal  = 32 // offset of size in struct ipt_get_entries

	extensionName  = 2   // offset of name in struct xt_entry_match and xt_entry_target
	extensionData  = 32  // offset of the data after either of these structures
	nameSize       = 29  // XT_EXTENSION_MAXNAMELEN
	shortestTarget = 36  // a standard target: its data begins with a verdict of 4 bytes
	conntrackState = 150 // offset of state_mask in struct xt_conntrack_mtinfo3

	verdictDrop   = -1 // -NF_DROP - 1
	verdictAccept = -2 // -NF_ACCEPT - 1; a verdict of 0 or more is a jump to the rule at this offset
)

// entryLayout holds the offsets of fields in struct ipt_entry (IPv4) or ip6t_entry (IPv6). Each rule begins
// with such a structure.
type entryLayout struct {
	inet, level int    // for socket(2) and getsockopt(2)
	names       string // file below /proc/net with the list of tables in use
	addresses   int    // length of source, destination and the masks of both, which are the first fields
	in, out     int    // offsets of the interfaces, of IFNAMSIZ bytes each; the masks of both follow
	conditions  [2]int // offsets of the first and after the last byte of protocol, flags and inversions
	target      int    // offset of target_offset; next_offset follows
	matches     int    // size of the structure, after which the matches begin
}

var (
	layout4 = entryLayout{unix.AF_INET, unix.SOL_IP, "ip_tables_names", 16, 16, 32, [2]int{80, 84}, 88, 112}
	layout6 = entryLayout{unix.AF_INET6, unix.SOL_IPV6, "ip6_tables_names", 64, 64, 80, [2]int{128, 133}, 140, 168}
)

// Legacy has chains of the filter table of iptables-legacy.
type Legacy struct {
	InUse bool // packets traverse the table
	// Chains has the rules of the chains that exist, by the name of the chain. The last rule of FORWARD is the
	// policy, and the last rule of every other chain is a return.
	Chains map[string][]Rule
}

// ReadLegacy reads FORWARD and the other given chains of the filter table of iptables-legacy, if packets traverse the
// table. Because the kernel creates a table when a program reads it, ReadLegacy first reads the list of tables in
// use. In a user namespace, this list cannot be read. ReadLegacy then reads the table, and treats a table in its
// initial state as not in use.
func ReadLegacy(n *netns.Namespace, family int, others ...string) (l Legacy, err error) {
	layout := layout4
	if family == unix.AF_INET6 {
		layout = layout6
	}
	err = n.Do(func() error {
		// The path contains thread-self, because /proc/net shows the namespace of the main thread.
		names, err := files.Read("/proc/thread-self/net/" + layout.names)
		unknown := errors.Is(err, os.ErrPermission)
		if err != nil && !unknown && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("list tables of iptables-legacy: %w", err)
		}
		if l.InUse = unknown || slices.Contains(strings.Fields(string(names)), Filter); !l.InUse {
			return nil
		}
		info, table, err := layout.fetch()
		if err == nil {
			l.Chains, err = layout.parse(info, table, others)
		}
		forward := l.Chains[Forward]
		untouched := len(forward) == 1 && forward[0].Target == Accept || errors.Is(err, unix.ENOPROTOOPT)
		if unknown && untouched {
			l.InUse, err = false, nil
		}
		return err
	})
	return l, err
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
		copy(info, Filter)
		if err := netns.Getsockopt(fd, l.level, soGetInfo, info); err != nil {
			return nil, nil, fmt.Errorf("read table filter of iptables-legacy: %w", err)
		}
		total := binary.NativeEndian.Uint32(info[infoTotal:])
		table = make([]byte, entriesHeader+total)
		copy(table, Filter)
		binary.NativeEndian.PutUint32(table[entriesTotal:], total)
		err := netns.Getsockopt(fd, l.level, soGetEntries, table)
		if err == nil {
			return info, table[entriesHeader:], nil
		}
		if !errors.Is(err, unix.EAGAIN) { // on EAGAIN, the table has changed since soGetInfo
			return nil, nil, fmt.Errorf("read rules of iptables-legacy: %w", err)
		}
	}
}

// parse returns the rules of FORWARD and of the chains in the parameter others, as in Legacy.Chains. A user-defined
// chain begins with an entry whose target is named ERROR, and the data of this target is the name of the chain.
func (l entryLayout) parse(info, table []byte, others []string) (chains map[string][]Rule, err error) {
	chains = map[string][]Rule{}
	chainAt := map[int]string{
		int(binary.NativeEndian.Uint32(info[infoForward:])): Forward,
		int(binary.NativeEndian.Uint32(info[infoOutput:])):  "OUTPUT",
	}
	err = l.each(table, func(_, next int, _, target []byte) {
		if netns.Text(target[extensionName:], nameSize) == "ERROR" {
			chainAt[next] = netns.Text(target[extensionData:], nameSize)
		}
	})
	if err != nil {
		return nil, err
	}
	chain := ""
	err = l.each(table, func(at, _ int, entry, target []byte) {
		if name, begins := chainAt[at]; begins {
			chain = name
		} else if netns.Text(target[extensionName:], nameSize) == "ERROR" {
			chain = ""
		}
		if chain == Forward || slices.Contains(others, chain) {
			chains[chain] = append(chains[chain], l.rule(entry, target, chainAt))
		}
	})
	return chains, err
}

// each calls f for each entry of the table. The parameters at and next are the offsets of this
// entry and of the next entry. The parameter entry has the bytes before the target, and the
// parameter target has the rest.
func (l entryLayout) each(table []byte, f func(at, next int, entry, target []byte)) error {
	for at := 0; at < len(table); {
		toTarget, size := 0, 0
		if len(table)-at >= l.matches {
			toTarget, size = int(binary.NativeEndian.Uint16(table[at+l.target:])), int(binary.NativeEndian.Uint16(table[at+l.target+2:]))
		}
		if toTarget < l.matches || size < toTarget+shortestTarget || size > len(table)-at {
			return fmt.Errorf("read rules of iptables-legacy: the entry at offset %d has a wrong length", at)
		}
		f(at, at+size, table[at:at+toTarget], table[at+toTarget:at+size])
		at += size
	}
	return nil
}

// rule parses one entry. chainAt maps the offset of a chain's first rule to the name of the chain.
func (l entryLayout) rule(entry, target []byte, chainAt map[int]string) (r Rule) {
	var wildIn, wildOut bool
	r.In, wildIn = l.iface(entry, l.in)
	r.Out, wildOut = l.iface(entry, l.out)
	r.Other = wildIn || wildOut || !zero(entry[:l.addresses]) || !zero(entry[l.conditions[0]:l.conditions[1]])
	for m, size := entry[l.matches:], 0; len(m) >= extensionData; m = m[size:] {
		size = min(max(extensionData, int(binary.NativeEndian.Uint16(m))), len(m))
		switch name := netns.Text(m[extensionName:], nameSize); {
		case name == "conntrack" && size >= extensionData+conntrackState+2:
			r.States = binary.NativeEndian.Uint16(m[extensionData+conntrackState:])
		case name != "comment":
			r.Other = true
		}
	}
	if r.Target = netns.Text(target[extensionName:], nameSize); r.Target == "" { // an empty name is the standard target, whose data is a verdict
		switch verdict := int(int32(binary.NativeEndian.Uint32(target[extensionData:]))); {
		case verdict == verdictDrop:
			r.Target = Drop
		case verdict == verdictAccept:
			r.Target = Accept
		case verdict >= 0:
			r.Target = chainAt[verdict]
		}
	}
	return r
}

// iface returns the name of the interface at this offset. The result wild is true if the name is a prefix,
// such as "eth+". A mask that includes the zero byte after the name means that the whole name must match.
func (l entryLayout) iface(entry []byte, at int) (name string, wild bool) {
	name = netns.Text(entry[at:], unix.IFNAMSIZ)
	mask := entry[at+l.out-l.in+unix.IFNAMSIZ:]
	return name, name != "" && len(name) < unix.IFNAMSIZ && mask[len(name)] == 0
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
