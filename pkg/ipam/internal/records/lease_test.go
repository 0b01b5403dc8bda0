package records

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
)

// compareAddresses makes cmp.Diff compare addresses by the operator ==.
var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestLeaseEncoding(t *testing.T) {
	for _, want := range []Lease{
		{
			Attachment: leases.Attachment{Network: "n", Container: "c", Interface: "eth0"},
			Address:    netip.MustParsePrefix("10.1.0.2/16"), Gateway: netip.MustParseAddr("10.1.0.1"),
			Namespace: leases.Namespace{Path: "/run/netns/a\nb", Device: 4, Inode: 4026532000},
			Time:      time.Unix(1, 2), Sticky: leases.Sticky{Name: "ns/pod", For: time.Hour}, Until: time.Unix(3, 4),
		},
		{Attachment: leases.Attachment{Network: "n", Container: "c"}, Address: netip.MustParsePrefix("fd00::2/128"), Time: time.Unix(0, 0)},
	} {
		got, err := decodeLease("n", want.Address.Addr(), encodeLease(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestDecodeLeaseDamaged(t *testing.T) {
	address := netip.MustParseAddr("10.1.0.2")
	if l, err := decodeLease("n", address, []byte("c\x00eth0\x0016\x00\x00\x004\x005\x006\x00\x000\x00")); err != nil {
		t.Fatalf("a valid record: %v, %v", l, err)
	}
	for _, record := range []string{
		"", "c", "c\x00eth0\x0016\x00\x00\x004\x005", "c\x00eth0\x0033\x00\x00\x004\x005\x006\x00\x000\x00",
		"c\x00eth0\x0016\x0010.1\x00\x004\x005\x006\x00\x000\x00", "c\x00eth0\x0016\x00\x00\x00-4\x005\x006\x00\x000\x00",
		"c\x00eth0\x0016\x00\x00\x004\x005\x00x\x00\x000\x00", "c\x00eth0\x0016\x00\x00\x004\x005\x006\x00\x00-1\x00",
	} {
		if l, err := decodeLease("n", address, []byte(record)); !errors.Is(err, boltfile.ErrDamaged) {
			t.Errorf("%q: %v, %v", record, l, err)
		}
	}
}

// FuzzRecord decodes any text as a lease and as a pool. It checks that a decoded record stays the
// same after it is encoded and decoded again.
func FuzzRecord(f *testing.F) {
	address := netip.MustParseAddr("10.1.0.2")
	f.Add(encodeLease(Lease{Attachment: leases.Attachment{Network: "net", Container: "c", Interface: "eth0"}, Address: netip.PrefixFrom(address, 16), Time: time.Unix(1, 2)}))
	f.Add((&Pool{Start: address, End: address, Leased: 1}).encode())
	f.Fuzz(func(t *testing.T, record []byte) {
		l, err := decodeLease("net", address, record)
		if err == nil {
			again, err := decodeLease("net", address, encodeLease(l))
			if diff := cmp.Diff(l, again, compareAddresses); diff != "" || err != nil {
				t.Errorf("%v (-first +again):\n%s", err, diff)
			}
		} else if !errors.Is(err, boltfile.ErrDamaged) {
			t.Error(err)
		}
		p, err := decodePool(addressKey(address), record)
		if err == nil {
			again, err := decodePool(addressKey(address), p.encode())
			if err != nil || *again != *p {
				t.Errorf("first %v, again %v, %v", p, again, err)
			}
		} else if !errors.Is(err, boltfile.ErrDamaged) {
			t.Error(err)
		}
	})
}
