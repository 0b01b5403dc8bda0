package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// traceWait is how long after the packet the kernel's messages about it are waited for.
const traceWait = 50 * time.Millisecond

// traceBuffer is room for the kernel's messages, in bytes: it sends one for each rule that
// the packet meets, of some 2 kB with all that it is counted for.
const traceBuffer = 16 << 20

// verdict is what a chain of nf_tables has said of our packet.
type verdict struct {
	family       uint8 // NFPROTO_*
	table, chain string
	handle       uint64 // of the rule; 0 is the policy
	dropped      bool
}

// trace has nf_tables of a namespace tell about our packets.
type trace struct {
	socket *nl.NetlinkSocket
	rules  *nftables.Conn
	tables []*nftables.Table
}

// startTrace begins to listen. stop is its inverse.
func startTrace(ns *setup.Namespace, f flow) (*trace, error) {
	t := &trace{}
	err := ns.Do(func() (err error) {
		if t.socket, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTRACE); err != nil {
			return fmt.Errorf("listen to nf_tables: %w", err)
		}
		if err = t.socket.SetReceiveBufferSize(traceBuffer, true); err == nil {
			t.rules, t.tables, err = mark(f)
		}
		if err != nil {
			t.socket.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// flow is our packets, from a to b, and their answers.
type flow struct {
	a, b netip.Addr
	id   uint16 // of the echo: others' packets between the two are not ours
}

// mark marks our packets and their answers at every place where one can come in:
// bridged, by a link, and from the host itself.
func mark(f flow) (*nftables.Conn, []*nftables.Table, error) {
	family := nftables.TableFamilyIPv4
	if f.a.Is6() {
		family = nftables.TableFamilyIPv6
	}
	c, tables, err := addTables(nftables.TableFamilyBridge, family)
	if err != nil {
		return nil, nil, err
	}
	early := nftables.ChainPriorityRef(-400) // ahead of raw
	for _, at := range []struct {
		table *nftables.Table
		hook  *nftables.ChainHook
	}{{tables[0], nftables.ChainHookPrerouting}, {tables[1], nftables.ChainHookPrerouting}, {tables[1], nftables.ChainHookOutput}} {
		chain := c.AddChain(&nftables.Chain{
			Name: fmt.Sprintf("hook%d", *at.hook), Table: at.table, Type: nftables.ChainTypeFilter, Hooknum: at.hook, Priority: early,
		})
		for _, way := range []flow{f, {f.b, f.a, f.id}} {
			c.AddRule(&nftables.Rule{Table: at.table, Chain: chain, Exprs: append(way.match(),
				&expr.Immediate{Register: 1, Data: []byte{1}},
				&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: 1},
			)})
		}
	}
	if err := c.Flush(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("trace packets by nf_tables: %w", err), deleteTables(c, tables))
	}
	return c, tables, nil
}

// match matches packets of ICMP from a to b.
func (f flow) match() []expr.Any {
	protocol, icmp, source, destination := uint16(unix.ETH_P_IP), byte(unix.IPPROTO_ICMP), uint32(12), uint32(16)
	if f.a.Is6() {
		protocol, icmp, source, destination = unix.ETH_P_IPV6, unix.IPPROTO_ICMPV6, 8, 24
	}
	var match []expr.Any
	is := func(what expr.Any, value []byte) {
		match = append(match, what, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value})
	}
	is(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, binary.BigEndian.AppendUint16(nil, protocol))
	for offset, address := range map[uint32]netip.Addr{source: f.a, destination: f.b} {
		is(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(address.BitLen() / 8)}, address.AsSlice())
	}
	is(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{icmp})
	is(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: echoID, Len: 2}, binary.BigEndian.AppendUint16(nil, f.id))
	return match
}

// stop ends the trace and returns what was said, in order.
func (t *trace) stop() (verdicts []verdict, err error) {
	time.Sleep(traceWait)
	defer t.socket.Close()
	err = deleteTables(t.rules, t.tables)
	_ = t.socket.SetReceiveTimeout(&unix.Timeval{Usec: 1000}) // or else what is there is read, and no more
	for {
		messages, _, failed := t.socket.Receive()
		if errors.Is(failed, unix.ENOBUFS) {
			continue // some were lost, the others are there
		}
		if failed != nil {
			return verdicts, err // there is nothing more
		}
		for _, m := range messages {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
				if v, ok := parseTrace(m.Data); ok && v.table != traceTable {
					verdicts = append(verdicts, v)
				}
			}
		}
	}
}

// parseTrace reads NFT_MSG_TRACE. ok is false for a rule that left the matter open.
func parseTrace(data []byte) (v verdict, ok bool) {
	if len(data) < nl.SizeofNfgenmsg {
		return v, false
	}
	v.family = data[0]
	attrs, err := nl.ParseRouteAttr(data[nl.SizeofNfgenmsg:])
	if err != nil {
		return v, false
	}
	var kind uint32
	code := int32(unix.NFT_CONTINUE)
	for _, a := range attrs {
		switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case unix.NFTA_TRACE_TABLE:
			v.table = cString(a.Value)
		case unix.NFTA_TRACE_CHAIN:
			v.chain = cString(a.Value)
		case unix.NFTA_TRACE_RULE_HANDLE:
			v.handle = binary.BigEndian.Uint64(a.Value)
		case unix.NFTA_TRACE_TYPE:
			kind = binary.BigEndian.Uint32(a.Value)
		case unix.NFTA_TRACE_VERDICT:
			if parts, err := nl.ParseRouteAttr(a.Value); err == nil && len(parts) > 0 {
				code = int32(binary.BigEndian.Uint32(parts[0].Value))
			}
		case unix.NFTA_TRACE_POLICY:
			code = int32(binary.BigEndian.Uint32(a.Value))
		}
	}
	v.dropped = code == nfDrop
	return v, kind == unix.NFT_TRACETYPE_RULE && (v.dropped || code == nfAccept) || kind == unix.NFT_TRACETYPE_POLICY
}

// Verdicts of linux/netfilter.h.
const nfDrop, nfAccept = 0, 1

func cString(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// families are those of nf_tables, as nft(8) has them.
var families = map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge"}

// where is the chain in words.
func (v verdict) where() string {
	return fmt.Sprintf("chain %s of table %s %s", v.chain, families[v.family], v.table)
}

// text is the rule, or the policy, in the words of nft(8), as far as that is installed.
func (v verdict) text(ns *setup.Namespace) string {
	if v.handle == 0 {
		return "policy drop"
	}
	out := ""
	_ = ns.Do(func() error { // without it the handle has to do
		b, err := exec.Command(program("nft"), "-a", "list", "chain", families[v.family], v.table, v.chain).Output()
		out = string(b)
		return err
	})
	rule := regexp.MustCompile(fmt.Sprintf(`(?m)^\s*(.*?) # handle %d$`, v.handle)).FindStringSubmatch(out)
	if rule == nil {
		return fmt.Sprintf("rule with handle %d", v.handle)
	}
	return fmt.Sprintf("%s # handle %d", rule[1], v.handle)
}

// program is a program's path. Not everybody has the sbin folders in PATH.
func program(name string) string {
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	return name
}
