package setup

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets into the network header, in bytes: RFC 791, RFC 8200 and RFC 826.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
	sourceARP             = 14
)

// source matches packets from a subnet.
func source(subnet netip.Prefix) []expr.Any { return within(source4, source6, subnet, expr.CmpOpEq) }

// destination matches packets to a subnet.
func destination(subnet netip.Prefix) []expr.Any {
	return within(destination4, destination6, subnet, expr.CmpOpEq)
}

// notMulticast matches packets to none of 224.0.0.0/4, or of ff00::/8.
func notMulticast(is6 bool) []expr.Any {
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	if is6 {
		multicast = netip.MustParsePrefix("ff00::/8")
	}
	return within(destination4, destination6, multicast, expr.CmpOpNeq)
}

// within compares an address in the network header with a subnet, in the form that nft(8)
// gives it and shows again: whole bytes, or all of the address under a mask.
func within(offset4, offset6 uint32, subnet netip.Prefix, op expr.CmpOp) []expr.Any {
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
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: load.Len, Mask: ipNet(subnet).Mask, Xor: make([]byte, load.Len)},
		&expr.Cmp{Op: op, Register: 1, Data: address},
	}
}

// neighbourAdvertisement matches packets of ICMPv6 type 136 (RFC 4861, section 4.4).
func neighbourAdvertisement() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{136}},
	}
}

// way names the packets of a link that interfaceIs matches by key, as seen from its containers.
func way(key expr.MetaKey) string {
	return map[expr.MetaKey]string{expr.MetaKeyIIFNAME: "outgoing", expr.MetaKeyOIFNAME: "incoming"}[key]
}

// interfaceIs compares the interface that a packet comes or goes by, or its kind.
func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.PutString(name + "\x00")},
	}
}

// metaIIFKind is NFT_META_IIFKIND in linux/netfilter/nf_tables.h (Linux 5.6): the kind
// of link that a packet comes by, such as "bridge".
const metaIIFKind expr.MetaKey = 26

// protocolIs compares what a frame holds: ETH_P_* in linux/if_ether.h.
func protocolIs(op expr.CmpOp, protocol uint16) []expr.Any {
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

// invalid matches packets of no connection that is known.
func invalid() []expr.Any { return ctBits(expr.CtKeySTATE, ctInvalid, expr.CmpOpNeq) }

// unanswered matches packets of connections that had no answer yet.
func unanswered() []expr.Any {
	return ctBits(expr.CtKeySTATE, ctEstablished|ctRelated, expr.CmpOpEq)
}

// ownLabel is the bit of conntrack's labels (connlabel.conf) that is set on connections which
// our host ports redirect. No program that we know of uses it.
const ownLabel = 98

// labelBit returns the labels of a connection that has ownLabel and no other: 128 bits, in
// words of the host's byte order (struct nf_conn_labels in the kernel).
func labelBit() []byte {
	const word, labels = 32, 128
	bit := make([]byte, labels/8)
	binary.NativeEndian.PutUint32(bit[ownLabel/word*4:], 1<<(ownLabel%word))
	return bit
}

// labelled matches packets of connections with ownLabel.
func labelled() []expr.Any {
	bit := labelBit()
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bit)), Mask: bit, Xor: make([]byte, len(bit))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, len(bit))},
	}
}

// untranslated matches all others.
func untranslated() []expr.Any { return ctBits(expr.CtKeySTATUS, ctDNAT, expr.CmpOpEq) }

// ctBits compares bits of conntrack's with none at all.
func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// toHost matches packets to an address of the host's own.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// orMark sets bits of a packet's mark and leaves the others: nf_tables has no "or", so
// those that are to be set are cleared by the mask and then flipped.
func orMark(bits uint32) []expr.Any {
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

func drop() []expr.Any { return verdict(expr.VerdictDrop) }

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}
}
