package ipam

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLeaseEncoding(t *testing.T) {
	for _, want := range []Lease{
		{
			Attachment{"n", "c", "eth0"}, netip.MustParsePrefix("10.1.0.2/16"), netip.MustParseAddr("10.1.0.1"),
			Namespace{"/run/netns/a\nb", 4, 4026532000}, time.Unix(1, 2), Sticky{"ns/pod", time.Hour}, time.Unix(3, 4),
		},
		{Attachment: Attachment{"n", "c", ""}, Address: netip.MustParsePrefix("fd00::2/128"), Time: time.Unix(0, 0)},
	} {
		got, err := decodeLease("n", want.Address.Addr(), want.encode())
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
		t.Fatalf("what the others are made of is no lease: %v, %v", l, err)
	}
	for _, record := range []string{
		"", "c", "c\x00eth0\x0016\x00\x00\x004\x005", "c\x00eth0\x0033\x00\x00\x004\x005\x006\x00\x000\x00",
		"c\x00eth0\x0016\x0010.1\x00\x004\x005\x006\x00\x000\x00", "c\x00eth0\x0016\x00\x00\x00-4\x005\x006\x00\x000\x00",
		"c\x00eth0\x0016\x00\x00\x004\x005\x00x\x00\x000\x00", "c\x00eth0\x0016\x00\x00\x004\x005\x006\x00\x00-1\x00",
	} {
		if l, err := decodeLease("n", address, []byte(record)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v, %v", record, l, err)
		}
	}
}

// TestGone uses plain files, which like namespaces have a device and an inode.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	there := NamespaceAt(dir)
	if there.Gone() {
		t.Error("a namespace that is there is gone")
	}
	if other := (Namespace{dir, there.Device, there.Inode + 1}); !other.Gone() {
		t.Error("another namespace has taken its place, and it is not gone")
	}
	if none := (Namespace{filepath.Join(dir, "none"), there.Device, there.Inode}); !none.Gone() {
		t.Error("a namespace that is not there is not gone")
	}
	if unseen := NamespaceAt(filepath.Join(dir, "none")); unseen.Gone() {
		t.Error("a namespace that was never seen is gone")
	}
}
