package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// sinceBoot returns the present time of CLOCK_BOOTTIME.
func sinceBoot(t testing.TB) time.Duration {
	t.Helper()
	now, err := SinceBoot()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// setBlocks makes the store record blocks, as if etcd had just been heard.
func setBlocks(t *testing.T, s *Store, subnets ...string) (list []Block) {
	t.Helper()
	for i, text := range subnets {
		list = append(list, Block{Subnet: netip.MustParsePrefix(text), Revision: int64(i + 1)})
	}
	if err := s.SetBlocks("net", sinceBoot(t), list); err != nil {
		t.Fatal(err)
	}
	return list
}

// pooled returns a request to a shared pool.
func pooled(t *testing.T, container string, ranges ...string) Request {
	t.Helper()
	r := request(t, container, ranges...)
	r.Pool = true
	return r
}

// TestBlocks checks that only addresses of the host's blocks are given out, without the network
// address, the gateway and the broadcast address.
func TestBlocks(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	list := setBlocks(t, s, "10.0.0.252/30", "10.0.0.0/30", "fd00::40/126")
	for _, c := range []struct{ container, want string }{
		{"a", "10.0.0.2/24 fd00::40/64"}, {"b", "10.0.0.3/24 fd00::41/64"}, {"c", "10.0.0.252/24 fd00::42/64"}, {"d", "10.0.0.253/24 fd00::43/64"},
	} {
		expect(t, s, pooled(t, c.container, "10.0.0.0/24", "fd00::/64"), c.want)
	}
	expect(t, s, pooled(t, "e", "10.0.0.0/24"), "10.0.0.254/24")
	_, err := s.Reserve(pooled(t, "f", "10.0.0.0/24"))
	want := "network net: no address is left in 10.0.0.252-10.0.0.254 (3 of 3 leased), 10.0.0.1-10.0.0.3 (2 of 2 leased)"
	if !errors.Is(err, ErrExhausted) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := s.Available(pooled(t, "f", "10.0.0.0/24")); !errors.Is(err, ErrExhausted) {
		t.Errorf("Available: %v, want %v", err, ErrExhausted)
	}
	release(t, s, "c")
	expect(t, s, pooled(t, "f", "10.0.0.0/24"), "10.0.0.252/24")
	_, got, known, err := s.Blocks("net")
	wanted := []Block{list[1], list[0], list[2]}
	if diff := cmp.Diff(wanted, got, compareAddresses); diff != "" || !known || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestBlocksLost checks that blocks that SetBlocks does not list are no longer given out, and that
// their leases stay.
func TestBlocksLost(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	setBlocks(t, s, "10.0.0.0/28", "10.0.0.16/28")
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.2/24")
	setBlocks(t, s, "10.0.0.16/28")
	expect(t, s, pooled(t, "b", "10.0.0.0/24"), "10.0.0.16/24")
	if held, err := s.Held(eth0("a")); err != nil || addresses(held) != "10.0.0.2/24" {
		t.Errorf("a has %s, %v", addresses(held), err)
	}
	setBlocks(t, s)
	_, err := s.Reserve(pooled(t, "c", "10.0.0.0/24"))
	if want := "network net: this host has no block in 10.0.0.1-10.0.0.254"; !errors.Is(err, ErrNoBlock) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	release(t, s, "a", "b")
}

// TestUnheard checks that blocks are given out only after etcd was heard in this boot, and for
// OfflineTime.
func TestUnheard(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	check := func(want string) {
		t.Helper()
		for _, err := range []error{errorOf(s.Reserve(pooled(t, "a", "10.0.0.0/24"))), errorOf(s.Available(pooled(t, "a", "10.0.0.0/24")))} {
			if !errors.Is(err, ErrUnheard) || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
	check("network net: etcd was not heard since the boot")
	list := setBlocks(t, s, "10.0.0.0/28")
	if err := s.SetBlocks("net", sinceBoot(t)-OfflineTime-90*time.Second, list); err != nil {
		t.Fatal(err)
	}
	check("network net: etcd was not heard for 24h1m0s, and a host may use its blocks for 24h0m0s")
	if err := s.SetBlocks("net", sinceBoot(t)-OfflineTime+time.Hour, list); err != nil {
		t.Fatal(err)
	}
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.2/24")
}

// TestBlocksAfterBoot checks that a new boot begins without blocks.
func TestBlocksAfterBoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := boot(t, "one").tryOpen(t, dir)
	setBlocks(t, s, "10.0.0.0/28")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = boot(t, "two").tryOpen(t, dir)
	defer s.Close()
	if _, list, known, err := s.Blocks("net"); len(list) > 0 || known || err != nil {
		t.Errorf("%v, %v, %v after a boot", list, known, err)
	}
}

// TestDropBlock checks that only a block without leases is dropped, and none before the network has
// taken over the addresses of its attached containers.
func TestDropBlock(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	list := setBlocks(t, s, "10.0.0.0/28", "10.0.0.16/28", "10.0.0.32/28")
	s.FindAttached = func(string) ([]Lease, error) {
		return []Lease{{Attachment: eth0("old"), Address: netip.MustParsePrefix("10.0.0.33/24"), Time: time.Now().Round(0)}}, nil
	}
	drop := func(b Block, want bool) {
		t.Helper()
		if dropped, err := s.DropBlock("net", b); dropped != want || err != nil {
			t.Errorf("%s: dropped %v, %v, want %v", b.Subnet, dropped, err, want)
		}
	}
	empty := func(want ...Block) {
		t.Helper()
		got, err := s.EmptyBlocks("net")
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" || err != nil {
			t.Errorf("empty blocks: %v (-want +got):\n%s", err, diff)
		}
	}
	empty(list...)
	drop(list[0], false) // the network is new
	drop(list[2], false) // it has a container
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.32/24")
	empty(list[:2]...)
	drop(list[0], true)
	drop(list[0], false)
	drop(list[2], false)
	release(t, s, "a", "old")
	drop(list[2], true)
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.16/24")
	drop(list[1], false)
	release(t, s, "a")
	drop(Block{Subnet: list[1].Subnet, Revision: 99}, false) // claimed again meanwhile
	drop(list[1], true)
	if _, err := s.Reserve(pooled(t, "b", "10.0.0.0/24")); !errors.Is(err, ErrNoBlock) {
		t.Errorf("%v, want %v", err, ErrNoBlock)
	}
}

// TestBlocksOfNewNetwork checks that a network with blocks is new to the store until its first
// lease: the addresses of its attached containers are taken over then.
func TestBlocksOfNewNetwork(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	setBlocks(t, s, "10.0.0.0/28")
	s.FindAttached = func(string) ([]Lease, error) {
		return []Lease{{Attachment: eth0("old"), Address: netip.MustParsePrefix("10.0.0.2/24"), Time: time.Now().Round(0)}}, nil
	}
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.3/24")
}

// TestBlocksDamaged checks that no address is given out if a record of a block cannot be read.
func TestBlocksDamaged(t *testing.T) {
	t.Parallel()
	for key, value := range map[string]string{"10.0.0.0/28": "x", "soup": "1", "heard": ""} {
		s := openTemp(t)
		setBlocks(t, s, "10.0.0.0/28")
		err := s.file.Update(func(tx *boltfile.Tx) error {
			return tx.Bucket([]byte("blocks")).Bucket([]byte("net")).Put([]byte(key), []byte(value))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Reserve(pooled(t, "a", "10.0.0.0/24")); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), `of network "net" cannot be decoded`) {
			t.Errorf("%s = %q: %v, want %v", key, value, err, ErrDamaged)
		}
	}
}

// TestFullestBlock checks that an address comes from the block with the most leases that has a free
// address, so that the other blocks become empty.
func TestFullestBlock(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	setBlocks(t, s, "10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30")
	for i, want := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8"} {
		expect(t, s, pooled(t, fmt.Sprint(i), "10.0.0.0/24"), want+"/24")
	}
	release(t, s, "2", "0", "3")
	// The first block has one lease, the second two, and the third one and addresses that were never used.
	expect(t, s, pooled(t, "a", "10.0.0.0/24"), "10.0.0.4/24")
	expect(t, s, pooled(t, "b", "10.0.0.0/24"), "10.0.0.5/24")
	release(t, s, "1")
	expect(t, s, pooled(t, "c", "10.0.0.0/24"), "10.0.0.9/24")

	// A block with two ranges is as full as both.
	s = openTemp(t)
	setBlocks(t, s, "10.0.0.8/29", "10.0.0.16/29")
	split := func(container string, requested ...string) Request {
		r := pooled(t, container)
		r.Sets = []Set{{complete(t, "10.0.0.0/24")}}
		out, err := ParseInterval("10.0.0.20")
		set, bad := r.Sets[0][0].Split([]Interval{out}, nil)
		if bad != nil || err != nil {
			t.Fatal(bad, err)
		}
		r.Sets = []Set{set}
		for _, a := range requested {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
		}
		return r
	}
	expect(t, s, split("a", "10.0.0.8"), "10.0.0.8/24")
	for _, a := range []string{"16", "17", "18", "19"} {
		expect(t, s, split(a, "10.0.0."+a), "10.0.0."+a+"/24")
	}
	expect(t, s, split("b"), "10.0.0.21/24")
}

// wantOutside checks that a request fails because its addresses are in blocks that the host does not
// own.
func wantOutside(t *testing.T, s *Store, r Request, want ...string) {
	t.Helper()
	_, err := s.Reserve(r)
	var outside *OutsideError
	if !errors.As(err, &outside) || !errors.Is(err, ErrNoBlock) {
		t.Fatalf("%v, want an error about %s", err, want)
	}
	var got []string
	for _, a := range outside.Addresses {
		got = append(got, a.String())
	}
	text := "network net: this host has no block with " + strings.Join(want, ", ")
	if diff := cmp.Diff(want, got); diff != "" || err.Error() != text {
		t.Errorf("%v, want %s (-want +got):\n%s", err, text, diff)
	}
}

// TestRequestedOutside checks the errors about requested addresses that are in no block of the host,
// and that the addresses are given out as soon as the host has the blocks.
func TestRequestedOutside(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	setBlocks(t, s, "10.0.0.16/28")
	r := pooled(t, "a", "10.0.0.0/24", "fd00::/64")
	r.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.40")}
	wantOutside(t, s, r, "10.0.0.40")
	r.Addresses = append(r.Addresses, netip.MustParseAddr("fd00::7"))
	wantOutside(t, s, r, "10.0.0.40", "fd00::7")
	setBlocks(t, s, "10.0.0.32/28", "fd00::/122")
	expect(t, s, r, "10.0.0.40/24 fd00::7/64")
	expect(t, s, pooled(t, "b", "10.0.0.0/24"), "10.0.0.32/24")
	r.Addresses[0] = netip.MustParseAddr("10.0.1.40")
	_, err := s.Reserve(r)
	if want := "10.0.1.40 is not available: it is outside the ranges 10.0.0.1-10.0.0.254, fd00::1-fd00::ffff:ffff:ffff:ffff"; !errors.Is(err, ErrNotServed) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestStaticOutside checks that a static address of a block is given out if it is requested, and that
// a block with static addresses alone is no block for other containers.
func TestStaticOutside(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	static, err := ParseInterval("10.0.0.64/28")
	set, bad := complete(t, "10.0.0.0/24").Split(nil, []Interval{static})
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	r := pooled(t, "a")
	r.Sets, r.Addresses = []Set{set}, []netip.Addr{netip.MustParseAddr("10.0.0.70")}
	setBlocks(t, s)
	wantOutside(t, s, r, "10.0.0.70")
	setBlocks(t, s, "10.0.0.64/28")
	expect(t, s, r, "10.0.0.70/24")
	r.Container, r.Addresses = "b", nil
	for _, err := range []error{errorOf(s.Reserve(r)), errorOf(s.Available(r))} {
		if want := "network net: this host has no block in 10.0.0.1-10.0.0.63"; !errors.Is(err, ErrNoBlock) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestStickyOutside checks that a pod whose address is in no block of the host asks for the block
// first, and then accepts another address.
func TestStickyOutside(t *testing.T) {
	t.Parallel()
	s, dir := openTemp(t), t.TempDir()
	pod := func(container string) Request {
		r := sticky(t, dir, "p", container, "10.0.0.0/24")
		r.Pool = true
		return r
	}
	setBlocks(t, s, "10.0.0.16/28")
	expect(t, s, pod("p1"), "10.0.0.16/24")
	expect(t, s, pod("p1"), "10.0.0.16/24")
	release(t, s, "p1")
	setBlocks(t, s, "10.0.0.32/28") // the host has lost the block
	wantOutside(t, s, pod("p2"), "10.0.0.16")
	setBlocks(t, s, "10.0.0.16/28", "10.0.0.32/28")
	expect(t, s, pod("p2"), "10.0.0.16/24")
	release(t, s, "p2")
	setBlocks(t, s, "10.0.0.32/28")
	r := pod("p3")
	r.AcceptOther = true
	expect(t, s, r, "10.0.0.32/24")
	expect(t, s, pod("p3"), "10.0.0.32/24")
	release(t, s, "p3")
	expect(t, s, pod("p4"), "10.0.0.32/24")
}

// TestRoom counts the addresses that are left in the host's blocks.
func TestRoom(t *testing.T) {
	t.Parallel()
	s := openTemp(t)
	r := pooled(t, "a", "10.0.0.0/24", "fd00::/48")
	static, err := ParseInterval("10.0.0.12-10.0.0.15")
	set, bad := r.Sets[0][0].Split(nil, []Interval{static})
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	r.Sets[0] = set
	room := func(want uint64, sets ...Set) {
		t.Helper()
		if got, err := s.Room("net", sets); got != want || err != nil {
			t.Errorf("%d, %v, want %d", got, err, want)
		}
	}
	room(0, r.Sets...)
	setBlocks(t, s, "10.0.0.0/29", "10.0.0.8/29", "fd00::/64", "fd00:0:0:1::/64")
	room(6+4, r.Sets...) // without the network address, the gateway and four static addresses
	room(1<<64-1, r.Sets[1])
	expect(t, s, r, "10.0.0.2/24 fd00::2/48")
	room(9, r.Sets...)
	release(t, s, "a")
	room(10, r.Sets...)
	setBlocks(t, s, "10.0.0.0/29")
	room(0, r.Sets...)
	room(6, r.Sets[0])
}

// TestDropBlockKept checks that an address that is kept for a name keeps its block only until the keeping
// time has ended, also if no Reserve frees the address.
func TestDropBlockKept(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keep time.Duration
		want bool
	}{{time.Hour, false}, {1, true}} {
		s := openTemp(t)
		list := setBlocks(t, s, "10.0.0.0/28")
		r := sticky(t, t.TempDir(), "p", "p1", "10.0.0.0/24")
		r.Pool, r.Sticky.For = true, tt.keep
		expect(t, s, r, "10.0.0.2/24")
		if dropped, err := s.DropBlock("net", list[0]); dropped || err != nil {
			t.Errorf("leased: dropped %v, %v", dropped, err)
		}
		release(t, s, "p1")
		empty, err := s.EmptyBlocks("net")
		if len(empty) == 1 != tt.want || err != nil {
			t.Errorf("kept for %s: empty blocks %v, %v", tt.keep, empty, err)
		}
		if dropped, err := s.DropBlock("net", list[0]); dropped != tt.want || err != nil {
			t.Errorf("kept for %s: dropped %v, %v, want %v", tt.keep, dropped, err, tt.want)
		}
	}
}
