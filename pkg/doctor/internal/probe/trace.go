package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// traceWait is the time to wait for the kernel's messages after the last packet.
const traceWait = 50 * time.Millisecond

// traceBuffer is the size of the buffer for the kernel's messages, in bytes. The kernel sends one
// message for each rule that a packet traverses. Each message takes about 2 kB of the buffer.
const traceBuffer = 16 << 20

// The kinds of packets that are traced. The name of a trace chain begins with the kind, and ends
// with the hook: "request prerouting".
const (
	Request = "request"
	Reply   = "reply"
)

// trace receives the trace messages of nf_tables in one namespace.
type trace struct {
	socket *nl.NetlinkSocket
	rules  *nftables.Conn
	tables []*nftables.Table
}

// startTrace begins to trace the packets of e and the answers to them in a namespace. For the links
// given, it also traces at the hook ingress, which comes before all other hooks. The method stop
// ends the trace.
func startTrace(ns *setup.Namespace, e *Echo, links ...string) (*trace, error) {
	t := &trace{}
	err := ns.Do(func() (err error) {
		if t.socket, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTRACE); err != nil {
			return fmt.Errorf("listen to nf_tables: %w", err)
		}
		if err = t.socket.SetReceiveBufferSize(traceBuffer, true); err == nil {
			err = t.mark(e, links)
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

// mark adds chains to nf_tables. The rules in these chains select the doctor's packets for the
// trace (meta nftrace). There is a chain at every hook where a packet can enter the namespace: from
// a bridge, from a link, and from a socket.
func (t *trace) mark(e *Echo, links []string) (err error) {
	family := nftables.TableFamilyIPv4
	if e.from.Is6() {
		family = nftables.TableFamilyIPv6
	}
	if t.rules, t.tables, err = addTables(nftables.TableFamilyBridge, family, nftables.TableFamilyNetdev); err != nil {
		return err
	}
	t.markAt(e, t.tables[0], nftables.ChainHookPrerouting, "prerouting", "")
	t.markAt(e, t.tables[1], nftables.ChainHookPrerouting, "prerouting", "")
	t.markAt(e, t.tables[1], nftables.ChainHookOutput, "output", "")
	if err := t.rules.Flush(); err != nil {
		return errors.Join(fmt.Errorf("trace packets by nf_tables: %w", err), deleteTables(t.rules, t.tables))
	}
	for i, link := range links {
		t.markAt(e, t.tables[2], nftables.ChainHookIngress, fmt.Sprintf("ingress%d", i), link)
		_ = t.rules.Flush() // this fails if the link was deleted or the kernel lacks the hook; then nothing drops packets at this hook
	}
	return nil
}

// early is the priority of the trace chains. Chains with this priority come before the chains of
// the table raw (priority -300).
var early = nftables.ChainPriorityRef(-400)

// markAt adds the chains for one hook: one chain for requests and one for replies.
func (t *trace) markAt(e *Echo, table *nftables.Table, hook *nftables.ChainHook, name, link string) {
	for packet, match := range map[string][]expr.Any{
		Request: match(e.from, e.to, e.id),
		Reply:   match(e.to, netip.Addr{}, e.id), // the request may have been masqueraded, so the reply may go to any address
	} {
		chain := t.rules.AddChain(&nftables.Chain{
			Name: packet + " " + name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: early, Device: link,
		})
		t.rules.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match,
			&expr.Immediate{Register: 1, Data: []byte{1}},
			&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: 1},
		)})
	}
}

// match returns the expressions that match ICMP echo packets with these addresses and this ID. If
// the parameter to is not valid, packets to any destination match.
func match(from, to netip.Addr, id uint16) (match []expr.Any) {
	protocol, icmp, source, destination := uint16(unix.ETH_P_IP), byte(unix.IPPROTO_ICMP), uint32(12), uint32(16)
	if from.Is6() {
		protocol, icmp, source, destination = unix.ETH_P_IPV6, unix.IPPROTO_ICMPV6, 8, 24
	}
	is := func(what expr.Any, value []byte) {
		match = append(match, what, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value})
	}
	is(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, binary.BigEndian.AppendUint16(nil, protocol))
	address := uint32(from.BitLen() / 8)
	is(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: address}, from.AsSlice())
	if to.IsValid() {
		is(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destination, Len: address}, to.AsSlice())
	}
	is(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{icmp})
	is(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: echoID, Len: 2}, binary.BigEndian.AppendUint16(nil, id))
	return match
}

// stop ends the trace. It returns the verdicts in the order in which the packets met the rules.
func (t *trace) stop() (verdicts []Verdict, err error) {
	time.Sleep(traceWait)
	defer t.socket.Close()
	err = deleteTables(t.rules, t.tables)
	for buffer := make([]byte, 1<<16); ; {
		n, _, failed := unix.Recvfrom(t.socket.GetFd(), buffer, unix.MSG_DONTWAIT)
		if errors.Is(failed, unix.ENOBUFS) || errors.Is(failed, unix.EINTR) {
			continue // on ENOBUFS, some messages were lost, but the others can be read
		}
		if failed != nil {
			return verdicts, err // no more messages
		}
		messages, failed := syscall.ParseNetlinkMessage(buffer[:n])
		if failed != nil {
			return verdicts, fmt.Errorf("listen to nf_tables: %w", failed)
		}
		for _, m := range messages {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
				if v, ok := parseTrace(m.Data); ok {
					verdicts = append(verdicts, v)
				}
			}
		}
	}
}

// parseTrace parses a message of type NFT_MSG_TRACE. For a rule of another program, ok is true if
// the rule accepted or dropped the packet. For a rule of the trace itself, ok is always true.
func parseTrace(data []byte) (v Verdict, ok bool) {
	if len(data) < nl.SizeofNfgenmsg {
		return v, false
	}
	v.Family = families[data[0]]
	attrs, err := nl.ParseRouteAttr(data[nl.SizeofNfgenmsg:])
	if err != nil {
		return v, false
	}
	var kind uint32
	code := int32(unix.NFT_CONTINUE)
	for _, a := range attrs {
		switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case unix.NFTA_TRACE_TABLE:
			v.Table = cString(a.Value)
		case unix.NFTA_TRACE_CHAIN:
			v.Chain = cString(a.Value)
		case unix.NFTA_TRACE_RULE_HANDLE:
			v.Handle = binary.BigEndian.Uint64(a.Value)
		case unix.NFTA_TRACE_IIF:
			v.in = int(binary.BigEndian.Uint32(a.Value))
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
	v.Dropped = expr.VerdictKind(code) == expr.VerdictDrop
	if v.Table == traceTable {
		return v, kind == unix.NFT_TRACETYPE_RULE && v.Handle != 0 // a message without a handle is about the end of the chain
	}
	return v, kind == unix.NFT_TRACETYPE_RULE && (v.Dropped || expr.VerdictKind(code) == expr.VerdictAccept) || kind == unix.NFT_TRACETYPE_POLICY
}
