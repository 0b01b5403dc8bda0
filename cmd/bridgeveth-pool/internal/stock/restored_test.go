package stock

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// lease leases an address that this host must have.
func lease(t *testing.T, s *Stock, container string) netip.Addr {
	t.Helper()
	address, err := reserve(t, s, container)
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr(address)
}

// blockOf returns the block of an address as a text.
func blockOf(t *testing.T, s *Stock, a netip.Addr) string {
	t.Helper()
	b, ok := s.Pools[0].Of(a)
	if !ok {
		t.Fatalf("%s is not in the pool", a)
	}
	return b.String()
}

// has reports whether a host's store has a block.
func has(t *testing.T, s *Stock, block string) bool {
	t.Helper()
	return strings.Contains(" "+subnets(t, s)+" ", " "+block+" ")
}

// TestRestored restores etcd from a backup after hosts have claimed and returned blocks.
func TestRestored(t *testing.T) {
	etcdtest.EachProgram(t, func(t *testing.T, program string, port int) {
		server := etcdtest.StartCluster(t, etcdtest.Options{Program: program, Port: port})
		c := server.Client()
		free, taken, returned, claimed, rebooted := stock(t, c, "free"), stock(t, c, "taken"), stock(t, c, "returned"), stock(t, c, "claimed"), stock(t, c, "rebooted")
		for _, s := range []*Stock{free, taken, returned, claimed} {
			s.Pools = pool("10.1.0.0/24", 30)
		}
		fill(t, free)
		fill(t, taken)
		threeEmpty(t, returned)
		rebooted.Member.Boot = "first"
		fill(t, rebooted)
		restore := server.Backup()

		// Since the backup, hosts claim blocks, return one that another host claims, and reboot.
		var last netip.Addr
		for i := range 5 { // more than one block has
			last = lease(t, free, fmt.Sprint(i))
			fill(t, free)
		}
		var lost netip.Addr
		for i := range 5 {
			lost = lease(t, taken, fmt.Sprint(i))
			fill(t, taken)
		}
		before := strings.Fields(subnets(t, returned))
		pass(t, returned, 2*returnAfter)
		fill(t, returned)
		moved := "" // the block that was returned
		for _, b := range before {
			if !has(t, returned, b) {
				moved = b
			}
		}
		if err := claimed.Fill(etcdtest.Deadline(t), netip.MustParsePrefix(moved).Addr().Next()); err != nil {
			t.Fatal(err)
		}
		for i, in := 0, false; !in; i++ {
			in = blockOf(t, claimed, lease(t, claimed, fmt.Sprint(i))) == moved
			fill(t, claimed)
		}
		again := stock(t, c, "rebooted")
		again.Member.Boot = "second"
		fill(t, again)
		restore()
		server.Client()

		fill(t, free)
		if !has(t, free, blockOf(t, free, last)) {
			t.Errorf("the host has %s leased, and its blocks are %s", last, subnets(t, free))
		}

		thief := stock(t, c, "thief")
		thief.Pools = pool("10.1.0.0/24", 30)
		if err := thief.Fill(etcdtest.Deadline(t), lost); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := taken.Fill(etcdtest.Deadline(t))
			want := "block " + blockOf(t, taken, lost) + ` belongs to host "thief" (ID thief, network net), and this host has `
			if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), want) {
				t.Errorf("a block that another host has claimed: %v, want %s", err, want)
			}
		}
		if has(t, taken, blockOf(t, taken, lost)) {
			t.Errorf("two hosts have the block of %s", lost)
		}

		fill(t, returned)
		fill(t, claimed)
		if has(t, returned, moved) || !has(t, claimed, moved) {
			t.Errorf("block %s: a host has %s, and another %s", moved, subnets(t, claimed), subnets(t, returned))
		}

		fill(t, again)
		for _, s := range []*Stock{free, taken, returned, claimed, again, thief} {
			if own, have := owned(t, c, s), strings.Join(sorted(subnets(t, s)), " "); own != have || own == "" {
				t.Errorf("host %s owns %q, and the store has %q", s.Member.Host, own, have)
			}
		}
	})
}

// TestOlderLeases checks that a host claims the blocks in which it has leases from before it had a pool.
func TestOlderLeases(t *testing.T) {
	c := etcdtest.StartCluster(t, etcdtest.Options{}).Client()
	s, late := stock(t, c, "a"), stock(t, c, "b")
	for _, host := range []*Stock{s, late} {
		err := host.withStore(func(store *ipam.Store) error {
			_, err := store.Reserve(ipam.Request{
				Attachment: ipam.Attachment{Network: "net", Container: "old", Interface: "eth0"}, Sets: []ipam.Set{host.Pools[0].Set},
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fill(t, s)
	if !has(t, s, "10.1.0.0/30") {
		t.Errorf("the host has %s, and a lease in 10.1.0.0/30", subnets(t, s))
	}
	if err := late.Fill(etcdtest.Deadline(t)); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), `block 10.1.0.0/30 belongs to host "a"`) {
		t.Errorf("two hosts with leases in a block: %v, want %v", err, ErrLost)
	}
	if got := strings.Fields(subnets(t, late)); len(got) != 1 || got[0] == "10.1.0.0/30" {
		t.Errorf("the other host has %s, want one other block", got)
	}
}
