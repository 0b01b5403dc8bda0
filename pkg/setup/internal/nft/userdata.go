package nft

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables/userdata"
)

// Numbers that nft(8) uses in user data. They are the same from nft 1.0.6 to 1.1.7: enum byteorder,
// enum expr_ops and enum proto_bases in its headers, and the numbers of attributes in src/mnl.c,
// src/meta.c and src/payload.c.
const (
	hostByteOrder = 1

	exprPayload = 7
	exprMeta    = 9
	exprConcat  = 13

	typeofKind, typeofData = 0, 1

	metaInputName = 6 // NFT_META_IIFNAME
	baseNetwork   = 2
)

// HostOrder returns the user data of a set whose keys are in the host's byte order. Without this user
// data, nft(8) prints the name of an interface as "", and cannot load its own listing.
func HostOrder() []byte { return word(userdata.NFTNL_UDATA_SET_KEYBYTEORDER, hostByteOrder) }

// TypeofPortAndPayload returns the user data of a set whose keys have this type, as nft(8) prints it:
//
//	typeof iifname . @nh,OFFSET,LENGTH
//
// offset and length are in bits.
func TypeofPortAndPayload(offset, length uint32) []byte {
	port := data(0, word(typeofKind, exprMeta), data(typeofData, word(0, metaInputName)))
	const protocol, description = 0, 0 // 0 because the bits belong to no field that nft(8) has a name for
	payload := data(1, word(typeofKind, exprPayload), data(typeofData,
		word(0, protocol), word(1, description), word(2, baseNetwork), word(3, offset), word(4, length)))
	return slices.Concat(
		word(userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 0), // 0: each part has its own byte order
		data(userdata.NFTNL_UDATA_SET_KEY_TYPEOF, word(typeofKind, exprConcat), data(typeofData, port, payload)))
}

// data returns one attribute of user data.
func data(kind userdata.Type, parts ...[]byte) []byte {
	return userdata.Append(nil, kind, slices.Concat(parts...))
}

// word returns one attribute of user data with 32 bits, in the host's byte order.
func word(kind userdata.Type, value uint32) []byte {
	return data(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// UserText returns the text of this kind in user data. The kernel accepts any bytes as user data. The
// library's userdata.GetString panics if the last length in them is too large.
func UserText(data []byte, kind userdata.Type) (text string, found bool) {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if userdata.Type(data[0]) == kind {
			return string(bytes.TrimSuffix(value, []byte{0})), true
		}
		data = data[2+len(value):]
	}
	return "", false
}
