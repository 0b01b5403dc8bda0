package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
)

// tryOpen opens the store in dir and fails the test on an error.
func tryOpen(t testing.TB, dir string) *Store {
	t.Helper()
	return thisBoot.tryOpen(t, dir)
}

// tryOpen opens the store in dir for the opener's boot, and fails the test on an error.
func (o opener) tryOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := o.open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openTemp opens a new store. When the test ends, it checks the records of the store and closes it.
func openTemp(t testing.TB) *Store {
	t.Helper()
	s := tryOpen(t, t.TempDir())
	t.Cleanup(func() {
		checkSound(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eth0 returns an attachment to the network "net": the interface eth0 of a container.
func eth0(container string) Attachment {
	return Attachment{Network: "net", Container: container, Interface: "eth0"}
}

// compareAddresses makes cmp.Diff compare addresses by the operator ==.
var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// complete returns the completed range that a text describes. The text is a subnet, optionally
// followed by start, end and gateway. The word "-" leaves a field empty.
func complete(t testing.TB, text string) Range {
	t.Helper()
	words := strings.Fields(text)
	r := Range{Subnet: netip.MustParsePrefix(words[0])}
	for i, field := range []*netip.Addr{&r.Start, &r.End, &r.Gateway} {
		if i+1 < len(words) && words[i+1] != "-" {
			*field = netip.MustParseAddr(words[i+1])
		}
	}
	r, bad := r.Complete()
	if bad != nil {
		t.Fatalf("%s: %v", text, bad)
	}
	return r
}

// request returns a request for a container's eth0. Each range is a set of its own.
func request(t testing.TB, container string, ranges ...string) Request {
	t.Helper()
	r := Request{Attachment: eth0(container)}
	for _, text := range ranges {
		r.Sets = append(r.Sets, Set{complete(t, text)})
	}
	return r
}

// reserve calls Reserve and returns the addresses, or the text of the error.
func reserve(s *Store, r Request) string {
	leases, err := s.Reserve(r)
	if err != nil {
		return err.Error()
	}
	return addresses(leases)
}

// addresses returns the addresses of leases as text, with their prefix lengths.
func addresses(leases []Lease) string {
	var list []string
	for _, l := range leases {
		list = append(list, l.Address.String())
	}
	return strings.Join(list, " ")
}

func release(t testing.TB, s *Store, containers ...string) {
	t.Helper()
	for _, c := range containers {
		if err := s.Release(eth0(c)); err != nil {
			t.Fatal(err)
		}
	}
}

// expect calls Reserve and fails the test unless the result is want: the addresses, or the text of
// the error.
func expect(t testing.TB, s *Store, r Request, want string) {
	t.Helper()
	if got := reserve(s, r); got != want {
		t.Errorf("%s: got %s, want %s", r.Container, got, want)
	}
}

func TestReserveRepeated(t *testing.T) {
	s := openTemp(t)
	r := request(t, "a", "10.0.0.0/29", "fd00::/64")
	r.Namespace = Namespace{Path: "/run/netns/a", Device: 1, Inode: 2}
	first, err := s.Reserve(r)
	if err != nil {
		t.Fatal(err)
	}
	want := []Lease{
		{Attachment: r.Attachment, Address: netip.MustParsePrefix("10.0.0.2/29"), Gateway: netip.MustParseAddr("10.0.0.1"), Namespace: r.Namespace, Time: first[0].Time},
		{Attachment: r.Attachment, Address: netip.MustParsePrefix("fd00::2/64"), Gateway: netip.MustParseAddr("fd00::1"), Namespace: r.Namespace, Time: first[1].Time},
	}
	if diff := cmp.Diff(want, first, compareAddresses); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	r.Namespace.Inode = 3 // another namespace, as after a restart of the container
	want[0].Namespace.Inode, want[1].Namespace.Inode = 3, 3
	again, err := s.Reserve(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again, compareAddresses); diff != "" {
		t.Errorf("again (-want +got):\n%s", diff)
	}
	held, err := s.Held(r.Attachment)
	if diff := cmp.Diff(want, held, compareAddresses); diff != "" || err != nil {
		t.Errorf("held: %v (-want +got):\n%s", err, diff)
	}
	all, err := s.Leases("net")
	if diff := cmp.Diff(want, all, compareAddresses); diff != "" || err != nil {
		t.Errorf("leases: %v (-want +got):\n%s", err, diff)
	}
}

// TestReserveOrder checks that unused addresses are given out first, and then the address that
// was freed longest ago.
func TestReserveOrder(t *testing.T) {
	s := openTemp(t)
	const pool = "10.0.0.0/29" // the addresses .2 to .6 can be given out
	expect(t, s, request(t, "a", pool), "10.0.0.2/29")
	expect(t, s, request(t, "b", pool), "10.0.0.3/29")
	expect(t, s, request(t, "c", pool), "10.0.0.4/29")
	release(t, s, "b", "a")
	expect(t, s, request(t, "d", pool), "10.0.0.5/29")
	expect(t, s, request(t, "e", pool), "10.0.0.6/29")
	expect(t, s, request(t, "f", pool), "10.0.0.3/29")
	release(t, s, "e")
	expect(t, s, request(t, "g", pool), "10.0.0.2/29")
	expect(t, s, request(t, "h", pool), "10.0.0.6/29")
	expect(t, s, request(t, "i", pool), "network net: no address is left in 10.0.0.1-10.0.0.6 (5 of 5 leased)")
}

// TestReserveQueueBound checks that the free queue of a large range does not grow without a
// limit.
func TestReserveQueueBound(t *testing.T) {
	s := openTemp(t)
	s.maxQueued = 2
	for i, want := range []string{"fd00::2/64", "fd00::3/64", "fd00::2/64", "fd00::3/64", "fd00::2/64"} {
		c := fmt.Sprint(i)
		expect(t, s, request(t, c, "fd00::/64"), want)
		release(t, s, c)
	}
	r := request(t, "a", "fd00::/64")
	expect(t, s, r, "fd00::3/64")
}

// TestReserveSet checks that the ranges of a set are used as one pool of addresses.
func TestReserveSet(t *testing.T) {
	s := openTemp(t)
	for i, want := range []string{"10.0.0.2/30", "10.0.1.2/29", "10.0.1.3/29"} {
		r := request(t, fmt.Sprint(i))
		r.Sets = []Set{{complete(t, "10.0.0.0/30"), complete(t, "10.0.1.0/29 - 10.0.1.3")}}
		expect(t, s, r, want)
	}
	r := request(t, "x")
	r.Sets = []Set{{complete(t, "10.0.0.0/30"), complete(t, "10.0.1.0/29 - 10.0.1.3")}}
	expect(t, s, r, "network net: no address is left in 10.0.0.1-10.0.0.2 (1 of 1 leased), 10.0.1.1-10.0.1.3 (2 of 2 leased)")
}

// TestReserveAtomic checks that Reserve reserves no address if one of the sets is full.
func TestReserveAtomic(t *testing.T) {
	s := openTemp(t)
	expect(t, s, request(t, "a", "fd00::/126 - fd00::2"), "fd00::2/126")
	_, err := s.Reserve(request(t, "b", "10.0.0.0/29", "fd00::/126 - fd00::2"))
	if !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	all, err := s.Leases("net")
	if got := addresses(all); got != "fd00::2/126" || err != nil {
		t.Errorf("leases %s, %v", got, err)
	}
}

// TestReserveSetOrder checks that the address that was freed longest ago is given out first,
// whichever range of the set it is in.
func TestReserveSetOrder(t *testing.T) {
	s := openTemp(t)
	set := Set{complete(t, "10.0.0.0/30"), complete(t, "10.0.1.0/29")} // .2 of the first range, and .2 to .6 of the second range can be given out
	ask := func(c string) Request {
		return Request{Attachment: eth0(c), Sets: []Set{set}}
	}
	expect(t, s, ask("a"), "10.0.0.2/30")
	release(t, s, "a")
	for i, want := range []string{"10.0.1.2/29", "10.0.1.3/29", "10.0.1.4/29", "10.0.1.5/29", "10.0.1.6/29"} {
		expect(t, s, ask(fmt.Sprint(i)), want)
	}
	release(t, s, "2")
	expect(t, s, ask("b"), "10.0.0.2/30")
	release(t, s, "b")
	expect(t, s, ask("c"), "10.0.1.4/29")
}

// TestReserveRequested checks which requests for particular addresses succeed, and the errors of
// all others.
func TestReserveRequested(t *testing.T) {
	s := openTemp(t)
	pool := complete(t, "10.0.0.0/29") // the addresses .2 to .6 can be given out
	five := netip.MustParseAddr("10.0.0.5")
	set, bad := pool.Split(nil, []Interval{{First: five, Last: five}})
	if bad != nil {
		t.Fatal(bad)
	}
	ask := func(container string, requested ...string) Request {
		r := Request{Attachment: eth0(container), Sets: []Set{set, {complete(t, "fd00::/64")}}}
		for _, address := range requested {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(address))
		}
		return r
	}
	expect(t, s, ask("a", "10.0.0.3"), "10.0.0.3/29 fd00::2/64")
	expect(t, s, ask("b", "fd00::7", "10.0.0.4"), "10.0.0.4/29 fd00::7/64")
	expect(t, s, ask("c"), "10.0.0.2/29 fd00::3/64")
	expect(t, s, ask("d"), "10.0.0.6/29 fd00::4/64")
	expect(t, s, ask("e", "10.0.0.5"), "10.0.0.5/29 fd00::5/64") // this address is given out only on request
	for _, tt := range []struct {
		requested []string
		kind      error
		want      string
	}{
		{nil, ErrExhausted, "10.0.0.1-10.0.0.4 (3 of 3 leased), 10.0.0.6-10.0.0.6 (1 of 1 leased)"},
		{[]string{"10.0.0.3"}, ErrTaken, "10.0.0.3 is leased already: to container a, interface eth0, since 20"},
		{[]string{"10.0.0.1"}, ErrNotServed, "10.0.0.1 is not available: it is the address of the gateway"},
		{[]string{"10.9.0.1"}, ErrNotServed, "10.9.0.1 is not available: it is outside the ranges 10.0.0.1-10.0.0.4, 10.0.0.6-10.0.0.6, 10.0.0.5-10.0.0.5, fd00::1-"},
		{[]string{"10.0.0.3", "10.0.0.4"}, ErrNotServed, "10.0.0.4 is not available: 10.0.0.3 is requested from the same set, and a set gives one address"},
	} {
		_, err := s.Reserve(ask("x", tt.requested...))
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %s", tt.requested, err, tt.want)
		}
	}
	if held, err := s.Held(ask("x").Attachment); held != nil || err != nil {
		t.Errorf("after an error the attachment holds %v, %v", held, err)
	}

	// An attachment can request another address. Its old address is then free.
	release(t, s, "e")
	expect(t, s, ask("a", "10.0.0.5"), "10.0.0.5/29 fd00::2/64")
	expect(t, s, ask("f"), "10.0.0.3/29 fd00::6/64")
	expect(t, s, ask("a"), "10.0.0.5/29 fd00::2/64")

	// If the lease of a requested address is not in use, Reserve ends this lease.
	r := ask("g", "10.0.0.4")
	r.InUse = func(l Lease) bool { return l.Container != "b" }
	expect(t, s, r, "10.0.0.4/29 fd00::8/64")
	if held, err := s.Held(ask("b").Attachment); held != nil || err != nil {
		t.Errorf("the attachment whose lease was ended holds %v, %v", held, err)
	}
}

// TestShared checks that a network cannot use a range in which another network has a lease, even if
// it used the range before.
func TestShared(t *testing.T) {
	s := openTemp(t)
	other := func(r Request) Request { r.Network = "other"; return r }
	refused := func(r Request, want string) {
		t.Helper()
		for _, err := range []error{errorOf(s.Available(r)), errorOf(s.Reserve(r))} {
			if !errors.Is(err, ErrShared) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: got %v, want %s", r.Container, r.Network, err, want)
			}
		}
	}
	expect(t, s, request(t, "a", "10.0.0.0/24"), "10.0.0.2/24")
	expect(t, s, other(request(t, "b", "10.0.1.0/24")), "10.0.1.2/24")
	wide := other(request(t, "c", "10.0.0.0/16"))
	refused(wide, "net has leased 1 addresses of 10.0.0.1-10.0.0.254")
	release(t, s, "a")
	expect(t, s, wide, "10.0.0.2/16")
	refused(request(t, "a", "10.0.0.0/24"), "other has leased 2 addresses of 10.0.0.1-10.0.255.254")

	// The network has two pools. Only the second pool, which has the lease, overlaps with the range
	// of the other network.
	two := request(t, "d", "10.2.0.0/25")
	two.Sets[0] = append(two.Sets[0], complete(t, "10.2.0.128/25"))
	two.Addresses = []netip.Addr{netip.MustParseAddr("10.2.0.130")}
	expect(t, s, two, "10.2.0.130/25")
	refused(other(request(t, "e", "10.2.0.0/24")), "net has leased 1 addresses of 10.2.0.129-10.2.0.254")

	// An address that was given out on request belongs to no pool.
	static := request(t, "f", "10.3.0.0/24")
	static.Sets[0][0].OnRequest = true
	static.Addresses = []netip.Addr{netip.MustParseAddr("10.3.0.9")}
	expect(t, s, static, "10.3.0.9/24")
	refused(other(request(t, "g", "10.3.0.0/24")), "net has leased 10.3.0.9")
	release(t, s, "f")
	expect(t, s, other(request(t, "g", "10.3.0.0/24")), "10.3.0.2/24")
	if err := errorOf(s.Reserve(static)); !errors.Is(err, ErrShared) {
		t.Errorf("static: got %v, want ErrShared", err)
	}
}

// errorOf returns the error of a call that returns a value and an error.
func errorOf[T any](_ T, err error) error { return err }

// TestSharedOnRequest checks that a network can request a free address of a range that it used
// before, even if another network uses a part of this range by now. The first network must not get
// the rest of the range.
func TestSharedOnRequest(t *testing.T) {
	s := openTemp(t)
	const whole = "10.0.0.0/28"
	own := request(t, "a", whole)
	expect(t, s, own, "10.0.0.2/28")
	release(t, s, "a")
	other := request(t, "b", "10.0.0.0/28 10.0.0.8")
	other.Network = "other"
	expect(t, s, other, "10.0.0.8/28")

	static := request(t, "c", "10.0.0.0/28 10.0.0.2 10.0.0.6")
	static.Sets[0][0].OnRequest = true
	static.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.4")}
	expect(t, s, static, "10.0.0.4/28")
	for range 10 {
		if leases, err := s.Reserve(request(t, "d", whole)); !errors.Is(err, ErrShared) {
			t.Fatalf("got %v, %v, want ErrShared", leases, err)
		}
	}
}

// TestSharedStatic checks that Reserve succeeds even if another network has leased a static address
// of this network. The request asks for no particular address, so it cannot get the static address.
func TestSharedStatic(t *testing.T) {
	s := openTemp(t)
	other := request(t, "a", "10.0.0.0/28 10.0.0.8")
	other.Network = "other"
	expect(t, s, other, "10.0.0.8/28")
	r := request(t, "b", "10.0.0.0/28 - 10.0.0.7", "fd00::/64")
	static := complete(t, "10.0.0.0/28 10.0.0.8")
	static.OnRequest = true
	r.Sets[0] = append(r.Sets[0], static)
	if _, err := s.Available(r); err != nil {
		t.Errorf("available: %v", err)
	}
	expect(t, s, r, "10.0.0.2/28 fd00::2/64")
}

// TestSharedKept checks that a network can use the addresses that another network only keeps for
// pods. A renamed network needs this, because its addresses are kept under its old name.
func TestSharedKept(t *testing.T) {
	s, stickyDir := openTemp(t), t.TempDir()
	expect(t, s, sticky(t, stickyDir, "pod", "a", "10.0.0.0/28"), "10.0.0.2/28")
	renamed := request(t, "b", "10.0.0.0/28")
	renamed.Network = "other"
	if _, err := s.Reserve(renamed); !errors.Is(err, ErrShared) {
		t.Fatalf("got %v, want ErrShared", err)
	}
	release(t, s, "a")
	if _, err := s.Available(renamed); err != nil {
		t.Errorf("available: %v", err)
	}
	if all, err := s.Leases("net"); len(all) != 1 || err != nil {
		t.Errorf("Available has changed the leases: %v, %v", all, err)
	}
	expect(t, s, renamed, "10.0.0.2/28")
	if _, err := s.Reserve(sticky(t, stickyDir, "pod", "c", "10.0.0.0/28")); !errors.Is(err, ErrShared) {
		t.Errorf("got %v, want ErrShared", err)
	}
}

// TestReserveOtherSets checks which addresses a running container keeps if its network now has
// other sets.
func TestReserveOtherSets(t *testing.T) {
	s := openTemp(t)
	expect(t, s, request(t, "a", "10.0.0.0/29"), "10.0.0.2/29")
	expect(t, s, request(t, "a", "fd00::/64", "10.0.0.0/29"), "fd00::2/64 10.0.0.2/29")
	expect(t, s, request(t, "a", "10.0.0.0/28", "fd00::/64"), "10.0.0.2/28 fd00::2/64")
	expect(t, s, request(t, "a", "10.9.0.0/29"), "10.9.0.2/29")
	all, err := s.Leases("net")
	if got := addresses(all); got != "10.9.0.2/29" || err != nil {
		t.Errorf("leases %s, %v", got, err)
	}
	expect(t, s, request(t, "a"), "")
}

// TestReserveOtherRange checks that no address is given out twice if the bounds and the gateway of
// a range in use change.
func TestReserveOtherRange(t *testing.T) {
	s := openTemp(t)
	for i := range 5 {
		reserve(s, request(t, fmt.Sprint(i), "10.0.0.0/28 - 10.0.0.6")) // leases .2 to .6
	}
	release(t, s, "0", "3")
	const wider = "10.0.0.0/28 - 10.0.0.8 10.0.0.8"
	for i, want := range []string{"10.0.0.1/28", "10.0.0.2/28", "10.0.0.5/28", "10.0.0.7/28"} {
		expect(t, s, request(t, fmt.Sprint("new", i), wider), want)
	}
	checkSound(t, s)
	expect(t, s, request(t, "x", wider), "network net: no address is left in 10.0.0.1-10.0.0.8 (7 of 7 leased)")
	release(t, s, "new2", "1", "new3")
	const narrower = "10.0.0.0/28 10.0.0.3 10.0.0.6"
	expect(t, s, request(t, "x", narrower), "10.0.0.3/28")
	expect(t, s, request(t, "y", narrower), "10.0.0.5/28")
	expect(t, s, request(t, "z", narrower), "network net: no address is left in 10.0.0.3-10.0.0.6 (4 of 4 leased)")
}

// TestReserveReclaims checks that Reserve on a full range ends all leases that are not in use, and
// no other lease.
func TestReserveReclaims(t *testing.T) {
	s := openTemp(t)
	const v4, v6 = "10.0.0.0/29 - 10.0.0.4", "fd00::/64" // .2 to .4 can be given out in v4
	for _, c := range []string{"running", "gone", "linked"} {
		reserve(s, request(t, c, v4, v6))
	}
	r := request(t, "new", v4, v6)
	expect(t, s, r, "network net: no address is left in 10.0.0.1-10.0.0.4 (3 of 3 leased)")
	if _, err := s.Available(r); !errors.Is(err, ErrExhausted) {
		t.Errorf("available: got %v, want ErrExhausted", err)
	}
	r.InUse = func(l Lease) bool { return l.Container == "running" || l.Container == "linked" }
	before, _ := s.Leases("net")
	if _, err := s.Available(r); err != nil {
		t.Errorf("available: %v", err)
	}
	if after, _ := s.Leases("net"); len(after) != len(before) {
		t.Errorf("Available has changed the leases: %v", after)
	}
	expect(t, s, r, "10.0.0.3/29 fd00::5/64")
	if left, err := s.Held(eth0("gone")); left != nil || err != nil {
		t.Errorf("the container \"gone\" still holds %v, %v", left, err)
	}
	expect(t, s, request(t, "running", v4, v6), "10.0.0.2/29 fd00::2/64")
}

func TestReleaseExcept(t *testing.T) {
	s := openTemp(t)
	for _, c := range []string{"a", "b", "c"} {
		reserve(s, request(t, c, "10.0.0.0/29"))
	}
	other := request(t, "a", "10.9.0.0/29")
	other.Network = "other"
	reserve(s, other)
	if err := s.ReleaseExcept("net", []Attachment{eth0("b"), {Network: "net", Container: "c", Interface: "eth1"}}); err != nil {
		t.Fatal(err)
	}
	for network, want := range map[string]string{"net": "10.0.0.3/29", "other": "10.9.0.2/29", "none": ""} {
		all, err := s.Leases(network)
		if got := addresses(all); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", network, got, err, want)
		}
	}
	if err := s.ReleaseExcept("net", nil); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Leases("net"); len(all) > 0 || err != nil {
		t.Errorf("left: %v, %v", all, err)
	}
}

func TestReleaseNothing(t *testing.T) {
	s := openTemp(t)
	release(t, s, "a", "a")
	if held, err := s.Held(Attachment{Network: "none", Container: "a", Interface: "eth0"}); held != nil || err != nil {
		t.Errorf("got %v, %v", held, err)
	}
}

// model holds the leases that the store must have. It has simple maps instead of a file and pools.
type model struct {
	held   map[Attachment][]netip.Addr
	unused map[Attachment]bool // attachments whose leases are not in use
}

// configurations are the sets of ranges between which runModel switches.
var configurations = [][]string{
	{"10.0.0.0/29"},
	{"10.0.0.0/29", "fd00::/125"},
	{"fd00::/125 - fd00::5 fd00::5", "10.0.0.0/28 10.0.0.3 10.0.0.9"},
	{"10.0.0.0/28 - - 10.0.0.14"},
}

// holder returns the attachment that has an address.
func (m *model) holder(a netip.Addr) (Attachment, bool) {
	for who, list := range m.held {
		if slices.Contains(list, a) {
			return who, true
		}
	}
	return Attachment{}, false
}

// refusal returns the error that Reserve must return for a request, according to the model. It
// returns nil if Reserve must succeed.
func (m *model) refusal(r Request) error {
	for _, a := range r.Addresses {
		if !slices.ContainsFunc(r.Sets, func(s Set) bool { return s.Serves(a) }) {
			return ErrNotServed
		}
	}
	for _, set := range r.Sets {
		taken, full := false, true
		for a := set[0].Start; ranges.Between(set[0].Start, a, set[0].End); a = a.Next() {
			who, held := m.holder(a)
			free := !held || who == r.Attachment || m.unused[who]
			taken = taken || slices.Contains(r.Addresses, a) && !free
			full = full && (!set.Serves(a) || !free)
		}
		switch {
		case taken:
			return ErrTaken
		case full:
			return ErrExhausted
		}
	}
	return nil
}

// reserve checks the leases or the error that Reserve has returned for a request against the model.
// Then it adds the leases to the model.
func (m *model) reserve(t *testing.T, s *Store, r Request, leases []Lease, err error) {
	if want := m.refusal(r); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("%v: got %v, %v, want %v; held: %v", r, leases, err, want, m.held)
	}
	if err != nil {
		return
	}
	var given []netip.Addr
	for i, l := range leases {
		a := l.Address.Addr()
		given = append(given, a)
		if who, held := m.holder(a); !r.Sets[i].Serves(a) || held && who != r.Attachment && !m.unused[who] {
			t.Fatalf("%v got %s, which %v holds", r, a, who)
		}
		for _, old := range m.held[r.Attachment] {
			if r.Sets[i].Serves(old) && old != a && !slices.Contains(r.Addresses, a) {
				t.Fatalf("%v had %s and got %s", r, old, a)
			}
		}
	}
	for _, a := range r.Addresses {
		if !slices.Contains(given, a) {
			t.Fatalf("%v requested %s and got %v", r, a, given)
		}
	}
	m.held[r.Attachment] = given
	for who := range m.unused { // Reserve may have ended the leases of these attachments
		if held, err := s.Held(who); err == nil && held == nil {
			delete(m.held, who)
		}
	}
}

// TestAgainstModel checks that the store has the same leases as the model after random calls.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			runModel(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

// runModel makes 250 random calls of a Store, and compares the store with the model after each
// call.
func runModel(t *testing.T, random *rand.Rand) {
	dir, stickyDir, configuration := t.TempDir(), t.TempDir(), 0
	host := boot(t, "boot0")
	s := host.tryOpen(t, dir)
	defer func() { _ = s.Close() }() // closes the store after a failed test; otherwise the store is closed below
	m := model{map[Attachment][]netip.Addr{}, map[Attachment]bool{}}
	for step := range 250 {
		r := request(t, string(rune('a'+random.IntN(12))), configurations[configuration]...)
		r.StickyDir = stickyDir
		r.InUse = func(l Lease) bool { return !m.unused[l.Attachment] }
		switch n := random.IntN(100); {
		case n < 50:
			delete(m.unused, r.Attachment)
			if random.IntN(4) == 0 {
				r.Sticky = Sticky{Name: fmt.Sprint("ns/", random.IntN(5)), For: time.Hour}
			}
			_, available := s.Available(r)
			if random.IntN(4) == 0 {
				r.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(15))})}
			}
			leases, err := s.Reserve(r)
			if (available == nil) != (err == nil) && m.held[r.Attachment] == nil && r.Addresses == nil {
				t.Fatalf("Available returned %v, Reserve %v", available, err)
			}
			m.reserve(t, s, r, leases, err)
		case n < 75:
			if err := s.Release(r.Attachment); err != nil {
				t.Fatal(err)
			}
			delete(m.held, r.Attachment)
		case n < 85:
			m.unused[r.Attachment] = true
		case n < 88:
			if err := s.ReleaseExcept("net", []Attachment{r.Attachment}); err != nil {
				t.Fatal(err)
			}
			m.held = map[Attachment][]netip.Addr{r.Attachment: m.held[r.Attachment]}
		case n < 90:
			// This process is killed during its call. The attachment must then have its leases from
			// before the call or those from after the call.
			verb := []string{"reserve", "free"}[random.IntN(2)]
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			killOnce(t, random, r.Container, dir, "once", host.bootIDFile, fmt.Sprint(configuration), verb)
			s = host.tryOpen(t, dir)
			held, err := s.Held(r.Attachment)
			switch {
			case err != nil:
				t.Fatal(err)
			case addresses(held) == addressesOf(m.held[r.Attachment], held):
			case verb == "free" && held == nil:
				delete(m.held, r.Attachment)
			default:
				r.InUse = nil // the killed process had called Reserve without InUse
				m.reserve(t, s, r, held, nil)
			}
		case n < 93:
			configuration = random.IntN(len(configurations))
		case n < 94:
			host = boot(t, fmt.Sprint("boot", step))
			m.held = map[Attachment][]netip.Addr{}
			fallthrough
		default:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = host.tryOpen(t, dir)
		}
		m.compare(t, s)
	}
}

// addressesOf returns the addresses in a list as text. The prefix lengths are those of the leases.
func addressesOf(list []netip.Addr, leases []Lease) string {
	var all []string
	for i, a := range list {
		if i < len(leases) {
			all = append(all, netip.PrefixFrom(a, leases[i].Address.Bits()).String())
		}
	}
	if len(list) != len(leases) {
		return "another number of leases"
	}
	return strings.Join(all, " ")
}

// compare fails the test unless the store has the leases of the model.
func (m *model) compare(t *testing.T, s *Store) {
	t.Helper()
	checkSound(t, s)
	leases, err := s.Leases("net")
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[netip.Addr]Attachment{}, map[netip.Addr]Attachment{}
	for _, l := range leases {
		if l.Until.IsZero() {
			got[l.Address.Addr()] = l.Attachment
		}
	}
	for who, list := range m.held {
		for _, a := range list {
			want[a] = who
		}
	}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Fatalf("leases (-want +got):\n%s", diff)
	}
}

// boot returns an opener for a boot with the given ID.
func boot(t testing.TB, id string) opener {
	t.Helper()
	file := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return opener{bootIDFile: file}
}
