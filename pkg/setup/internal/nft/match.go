package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Offsets into the network header, in bytes: RFC 791, RFC 8200 and RFC 826.
const (
	Source4      = 12
	Destination4 = 16
	Source6      = 8
	Destination6 = 24
	SourceARP    = 14
)

// Source matches packets from a subnet.
func Source(subnet netip.Prefix) []expr.Any { return Within(Source4, Source6, subnet, expr.CmpOpEq) }

// Destination matches packets to a subnet.
func Destination(subnet netip.Prefix) []expr.Any {
	return Within(Destination4, Destination6, subnet, expr.CmpOpEq)
}

// NotMulticast matches packets to none of 224.0.0.0/4, or of ff00::/8.
func NotMulticast(is6 bool) []expr.Any {
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	if is6 {
		multicast = netip.MustParsePrefix("ff00::/8")
	}
	return Within(Destination4, Destination6, multicast, expr.CmpOpNeq)
}

// Within compares an address in the network header with a subnet, in the form that nft(8)
// gives it and shows again: whole bytes, or all of the address under a mask.
func Within(offset4, offset6 uint32, subnet netip.Prefix, op expr.CmpOp) []expr.Any {
	offset, address := offset4, subnet.Masked().Addr().AsSlice()
	if subnet.Addr().Is6() {
		offset = offset6
	}
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(address))}
	switch bits := subnet.Bits(); {
	case bits == 0:
		return nil // all there are
	case bits%8 == 0:
		load.Len = uint32(bits / 8)
		return []expr.Any{load, &expr.Cmp{Op: op, Register: 1, Data: address[:load.Len]}}
	}
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: load.Len, Mask: netns.IPNet(subnet).Mask, Xor: make([]byte, load.Len)},
		&expr.Cmp{Op: op, Register: 1, Data: address},
	}
}

// NextHeaderIs compares the next header field of the IPv6 header: IPPROTO_*.
func NextHeaderIs(op expr.CmpOp, protocol byte) []expr.Any {
	return append(ProtocolIs(expr.CmpOpEq, unix.ETH_P_IPV6),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{protocol}})
}

// TransportIs matches packets of a transport protocol, IPPROTO_*, behind any IPv6 extension headers.
func TransportIs(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// NeighbourAdvertisement matches packets of ICMPv6 that are of type 136 (RFC 4861, section 4.4).
func NeighbourAdvertisement() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{136}},
	}
}

// Way names the packets of a link that interfaceIs matches by key, as seen from its containers.
func Way(key expr.MetaKey) string {
	return map[expr.MetaKey]string{expr.MetaKeyIIFNAME: "outgoing", expr.MetaKeyOIFNAME: "incoming"}[key]
}

// InterfaceIs compares the interface that a packet comes or goes by, or its kind.
func InterfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.PutString(name + "\x00")},
	}
}

// MetaIIFKind is NFT_META_IIFKIND in linux/netfilter/nf_tables.h (Linux 5.6): the kind
// of link that a packet comes by, such as "bridge".
const MetaIIFKind expr.MetaKey = 26

// ProtocolIs compares what a frame holds: ETH_P_* in linux/if_ether.h.
func ProtocolIs(op expr.CmpOp, protocol uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(protocol)},
	}
}

// Bits of conntrack, as nf_tables has them: linux/netfilter/nf_conntrack_common.h.
const (
	ctInvalid     = 1 << 0 // NF_CT_STATE_INVALID_BIT
	ctEstablished = 1 << 1 // NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
	ctRelated     = 1 << 2 // NF_CT_STATE_BIT(IP_CT_RELATED)
	ctDNAT        = 1 << 5 // IPS_DST_NAT
)

// Invalid matches packets of no connection that is known.
func Invalid() []expr.Any { return ctBits(expr.CtKeySTATE, ctInvalid, expr.CmpOpNeq) }

// Unanswered matches packets of connections that had no answer yet.
func Unanswered() []expr.Any {
	return ctBits(expr.CtKeySTATE, ctEstablished|ctRelated, expr.CmpOpEq)
}

// ownLabel is the bit of conntrack's labels (connlabel.conf) that is set on connections which
// our host ports redirect. No program that we know of uses it.
const ownLabel = 98

// LabelBit returns the labels of a connection that has ownLabel and no other: 128 bits, in
// words of the host's byte order (struct nf_conn_labels in the kernel).
func LabelBit() []byte {
	const word, labels = 32, 128
	bit := make([]byte, labels/8)
	binary.NativeEndian.PutUint32(bit[ownLabel/word*4:], 1<<(ownLabel%word))
	return bit
}

// Labelled matches packets of connections with ownLabel.
func Labelled() []expr.Any {
	bit := LabelBit()
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bit)), Mask: bit, Xor: make([]byte, len(bit))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, len(bit))},
	}
}

// Untranslated matches all others.
func Untranslated() []expr.Any { return ctBits(expr.CtKeySTATUS, ctDNAT, expr.CmpOpEq) }

// ctBits compares bits of conntrack's with none at all.
func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// ToHost matches packets to an address of the host's own.
func ToHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// OrMark sets bits of a packet's mark and leaves the others: nf_tables has no "or", so
// those that are to be set are cleared by the mask and then flipped.
func OrMark(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Counter{},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bits), Xor: binaryutil.NativeEndian.PutUint32(bits),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

// Drop counts packets and drops them.
func Drop() []expr.Any { return Verdict(expr.VerdictDrop) }

// Verdict counts packets and ends with a verdict.
func Verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}
}
