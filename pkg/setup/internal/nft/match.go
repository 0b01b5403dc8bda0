package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Offsets in bytes from the beginning of the network header: RFC 791, RFC 8200 and RFC 826.
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

// NotMulticast matches packets whose destination is not a multicast address. The multicast
// addresses are 224.0.0.0/4 in IPv4 and ff00::/8 in IPv6.
func NotMulticast(is6 bool) []expr.Any {
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	if is6 {
		multicast = netip.MustParsePrefix("ff00::/8")
	}
	return Within(Destination4, Destination6, multicast, expr.CmpOpNeq)
}

// Within compares an address in the network header with a subnet. It uses the same expressions as
// nft(8): if the prefix length is a multiple of 8, the rule compares only the bytes of the prefix.
// Otherwise it compares the address under a mask.
func Within(offset4, offset6 uint32, subnet netip.Prefix, op expr.CmpOp) []expr.Any {
	bits := subnet.Bits()
	if bits == 0 {
		return nil // every address is in the subnet
	}
	if bits%8 != 0 {
		return UnderMask(offset4, offset6, subnet, op)
	}
	load, address := loadAddress(offset4, offset6, subnet)
	load.Len = uint32(bits / 8)
	return []expr.Any{load, &expr.Cmp{Op: op, Register: 1, Data: address[:load.Len]}}
}

// UnderMask compares an address with a subnet as Within does, but always compares the whole address
// under a mask.
func UnderMask(offset4, offset6 uint32, subnet netip.Prefix, op expr.CmpOp) []expr.Any {
	load, address := loadAddress(offset4, offset6, subnet)
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: load.Len, Mask: netns.IPNet(subnet).Mask, Xor: make([]byte, load.Len)},
		&expr.Cmp{Op: op, Register: 1, Data: address},
	}
}

// loadAddress returns an expression and an address. The expression loads the source or destination
// address of a packet. The address is the first address of the subnet. The offset is offset4 or offset6,
// depending on the family of the subnet.
func loadAddress(offset4, offset6 uint32, subnet netip.Prefix) (load *expr.Payload, address []byte) {
	offset, address := offset4, subnet.Masked().Addr().AsSlice()
	if subnet.Addr().Is6() {
		offset = offset6
	}
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(address))}, address
}

// NextHeaderIs compares the next header field of the IPv6 header with a protocol number
// (IPPROTO_*).
func NextHeaderIs(op expr.CmpOp, protocol byte) []expr.Any {
	return append(ProtocolIs(expr.CmpOpEq, unix.ETH_P_IPV6),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{protocol}})
}

// TransportIs matches packets of a transport protocol (IPPROTO_*). IPv6 packets may have extension
// headers before the transport header.
func TransportIs(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// NeighbourAdvertisement matches ICMPv6 messages of type 136 (RFC 4861, section 4.4). A rule with
// this match must also match the protocol ICMPv6.
func NeighbourAdvertisement() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{136}},
	}
}

// Direction returns a name for the packets that a rule with this key matches. The name is the direction
// as seen from the containers: "outgoing" for MetaKeyIIFNAME, "incoming" for MetaKeyOIFNAME.
func Direction(key expr.MetaKey) string {
	return map[expr.MetaKey]string{expr.MetaKeyIIFNAME: "outgoing", expr.MetaKeyOIFNAME: "incoming"}[key]
}

// InterfaceIs compares a property of the interface on which a packet arrives or leaves. The parameter key
// selects the property: the name or the kind of the interface.
func InterfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.PutString(name + "\x00")},
	}
}

// MetaIIFKind is NFT_META_IIFKIND in linux/netfilter/nf_tables.h (Linux 5.6): the kind of the link
// on which a packet arrives, such as "bridge".
const MetaIIFKind expr.MetaKey = 26

// ProtocolIs compares the protocol of a frame with a protocol number (ETH_P_* in linux/if_ether.h).
func ProtocolIs(op expr.CmpOp, protocol uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(protocol)},
	}
}

// Bits of conntrack's state and status in linux/netfilter/nf_conntrack_common.h.
const (
	ctInvalid     = 1 << 0 // NF_CT_STATE_INVALID_BIT
	ctEstablished = 1 << 1 // NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
	ctRelated     = 1 << 2 // NF_CT_STATE_BIT(IP_CT_RELATED)
	ctDNAT        = 1 << 5 // IPS_DST_NAT
)

// Invalid matches packets that conntrack assigns to no connection.
func Invalid() []expr.Any { return ctBits(expr.CtKeySTATE, ctInvalid, expr.CmpOpNeq) }

// Unanswered matches packets of connections that have no reply yet.
func Unanswered() []expr.Any {
	return ctBits(expr.CtKeySTATE, ctEstablished|ctRelated, expr.CmpOpEq)
}

// AnsweredReply matches packets in the reply direction of connections that already have a reply.
func AnsweredReply() []expr.Any {
	const reply = 1 // IP_CT_DIR_REPLY in linux/netfilter/nf_conntrack_tuple_common.h
	return append([]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{reply}}},
		ctBits(expr.CtKeySTATE, ctEstablished, expr.CmpOpNeq)...)
}

// ownLabel is the bit in conntrack's labels (connlabel.conf) that marks connections to our host ports. We
// know of no other program that uses this bit.
const ownLabel = 98

// LabelBit returns a value for conntrack's labels in which only the bit ownLabel is set. The value has
// 128 bits, in words of the host's byte order (struct nf_conn_labels in the kernel).
func LabelBit() []byte {
	const word, labels = 32, 128
	bit := make([]byte, labels/8)
	binary.NativeEndian.PutUint32(bit[ownLabel/word*4:], 1<<(ownLabel%word))
	return bit
}

// Labelled matches packets of connections in which the bit ownLabel is set.
func Labelled() []expr.Any {
	bit := LabelBit()
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bit)), Mask: bit, Xor: make([]byte, len(bit))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, len(bit))},
	}
}

// Untranslated matches packets of connections whose destination address is not translated.
func Untranslated() []expr.Any { return ctBits(expr.CtKeySTATUS, ctDNAT, expr.CmpOpEq) }

// ctBits compares some bits of conntrack's state or status with 0. With CmpOpEq, it matches if none
// of the bits is set.
func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// ToHost matches packets whose destination is an address of the host itself.
func ToHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// OrMark sets bits of a packet's mark and keeps its other bits. nf_tables has no expression for
// "or". Therefore OrMark first clears these bits by a mask, and then sets them by an exclusive or.
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

// Drop counts the packets that a rule matches, and drops them.
func Drop() []expr.Any { return Verdict(expr.VerdictDrop) }

// Verdict counts the packets that a rule matches, and applies a verdict.
func Verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}
}
