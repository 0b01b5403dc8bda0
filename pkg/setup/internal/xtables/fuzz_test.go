package xtables

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// FuzzLegacy reads any bytes as a table of iptables-legacy.
func FuzzLegacy(f *testing.F) {
	for _, is4 := range []bool{true, false} {
		l := map[bool]entryLayout{true: layout4, false: layout6}[is4]
		entry := func(target string, data ...byte) []byte {
			size := extensionData + 40
			b := make([]byte, l.matches+size)
			binary.NativeEndian.PutUint16(b[l.target:], uint16(l.matches))
			binary.NativeEndian.PutUint16(b[l.target+2:], uint16(len(b)))
			copy(b[l.matches+extensionName:], target)
			copy(b[l.matches+extensionData:], data)
			return b
		}
		info := make([]byte, infoSize)
		f.Add(is4, info, []byte{})
		f.Add(is4, info, slices.Concat(entry("", 255, 255, 255, 255), entry("ERROR", []byte("CHAIN")...), entry("RETURN")))
		f.Add(is4, info, entry("")[:l.matches])
		f.Add(is4, info, make([]byte, l.matches+extensionData))
	}
	f.Fuzz(func(t *testing.T, is4 bool, info, table []byte) {
		if len(info) != infoSize {
			return // ReadLegacy passes no other size
		}
		chains, err := map[bool]entryLayout{true: layout4, false: layout6}[is4].parse(info, table, []string{"CHAIN"})
		if err != nil && len(chains) > 0 {
			t.Errorf("%d chains of a table with a wrong length: %v", len(chains), err)
		}
	})
}

// FuzzNFT reads any bytes as the expressions of an nf_tables rule.
func FuzzNFT(f *testing.F) {
	expression := func(name string, data ...*nl.RtAttr) []byte {
		e := nl.NewRtAttr(unix.NFTA_LIST_ELEM, nil)
		e.AddRtAttr(unix.NFTA_EXPR_NAME, nl.ZeroTerminated(name))
		in := e.AddRtAttr(unix.NFTA_EXPR_DATA, nil)
		for _, d := range data {
			in.AddChild(d)
		}
		return e.Serialize()
	}
	f.Add(slices.Concat(
		expression("meta", nl.NewRtAttr(unix.NFTA_META_KEY, []byte{0, 0, 0, unix.NFT_META_IIFNAME})),
		expression("cmp", nl.NewRtAttr(unix.NFTA_CMP_OP, []byte{0, 0, 0, 0})),
		expression("match", nl.NewRtAttr(unix.NFTA_MATCH_NAME, nl.ZeroTerminated("conntrack")), nl.NewRtAttr(unix.NFTA_MATCH_INFO, make([]byte, conntrackState+2))),
		expression("immediate"), expression("target"), expression("log"),
	))
	f.Fuzz(func(_ *testing.T, expressions []byte) {
		Parse(netns.Attrs(expressions))
		Readable(netns.Attrs(expressions))
	})
}
