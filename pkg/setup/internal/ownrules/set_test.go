package ownrules

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// FuzzElements reads any bytes as a message with the elements of a set, for each set that bridgeveth
// reads. Another program may have added the elements.
func FuzzElements(f *testing.F) {
	owner := PortComment(plan.Attachment{Network: "net", Container: "c", Interface: "eth0"})
	for _, e := range []element{
		{key: []byte{6, 0, 0, 0, 0, 80, 0, 0}, value: []byte{10, 1, 0, 2, 0, 80, 0, 0}, comment: owner},
		{key: make([]byte, 40), value: make([]byte, 20), comment: "x"},
		{key: []byte("veth0"), chain: "guard", comment: owner},
	} {
		f.Add(slices.Concat(make([]byte, nl.SizeofNfgenmsg), e.attribute().Serialize()))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < nl.SizeofNfgenmsg {
			return // the kernel sends no such message
		}
		for _, set := range []string{"ports", portsWaiting, "guarded"} {
			list, err := readElements(2, set, [][]byte{message}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				_ = ParseOwner(e.comment)
			}
			_ = readMappings(list)
		}
	})
}
