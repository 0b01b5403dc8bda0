package elements

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// FuzzElements reads any bytes as a message with the elements of a set. Another program may have added the
// elements.
func FuzzElements(f *testing.F) {
	owner := Comment(plan.Attachment{Network: "net", Container: "c", Interface: "eth0"})
	for _, e := range []Element{
		{Key: []byte{6, 0, 0, 0, 0, 80, 0, 0}, Value: []byte{10, 1, 0, 2, 0, 80, 0, 0}, Comment: owner},
		{Key: make([]byte, 40), Value: make([]byte, 20), Comment: "x"},
		{Key: []byte("veth0"), Chain: "guard", Comment: owner},
	} {
		f.Add(slices.Concat(make([]byte, nl.SizeofNfgenmsg), e.attribute().Serialize()))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < nl.SizeofNfgenmsg {
			return // the kernel sends no such message
		}
		list, err := read(unix.AF_INET, "ports", [][]byte{message}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			_ = ParseOwner(e.Comment)
		}
	})
}
