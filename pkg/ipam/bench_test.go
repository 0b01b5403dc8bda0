package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// benchSets returns an IPv4 set with a /12 and an IPv6 set with a /64. Each set has addresses for a
// million containers.
func benchSets(t testing.TB) []Set {
	return []Set{{complete(t, "10.0.0.0/12")}, {complete(t, "fd00::/64")}}
}

// populate leases addresses to containers whose IDs look like those of a runtime. It begins a new
// transaction after every thousand containers. During a transaction, bbolt keeps the changed
// records of a page in one sorted slice, which gets slow if it is long.
func populate(t testing.TB, dir string, containers int) {
	t.Helper()
	s := tryOpen(t, dir)
	r := Request{Sets: benchSets(t)}
	for done := 0; done < containers; done += 1000 {
		err := s.update("net", func(n *records.Network) error {
			for i := done; i < min(done+1000, containers); i++ {
				id := fmt.Sprintf("%016x%048x", uint64(i)*0x9E3779B97F4A7C15, i)
				r.Attachment = eth0(id)
				r.Namespace = Namespace{Path: "/run/netns/cni-" + id[:36], Device: 4, Inode: uint64(4026532000 + i)}
				if _, err := s.reserve(n, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// withOpen opens the store, calls f and closes the store, as a process of the plugin does.
func withOpen(b *testing.B, dir string, f func(*Store) error) {
	s, err := Open(dir, time.Second)
	if err == nil {
		err = errors.Join(f(s), s.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStore measures the functions of Store that the CNI verbs call, together with Open and
// Close. The store has up to a million containers, each with an IPv4 and an IPv6 lease.
func BenchmarkStore(b *testing.B) {
	for _, containers := range []int{0, 1_000, 65_000, 1_000_000} {
		b.Run(fmt.Sprint(containers), func(b *testing.B) {
			dir := b.TempDir()
			populate(b, dir, containers)
			dual := Request{Attachment: eth0("new"), Sets: benchSets(b)}
			single := dual
			single.Sets = dual.Sets[:1]
			for _, verb := range []struct {
				name string
				do   func(*Store) error
			}{
				{"Open", func(*Store) error { return nil }},
				{"Available", func(s *Store) error { _, err := s.Available(dual); return err }},
				{"Held", func(s *Store) error { _, err := s.Held(dual.Attachment); return err }},
			} {
				b.Run(verb.name, func(b *testing.B) {
					for b.Loop() {
						withOpen(b, dir, verb.do)
					}
				})
			}
			b.Run("ReserveRelease", func(b *testing.B) { benchmarkPair(b, dir, single) })
			b.Run("ReserveReleaseDual", func(b *testing.B) { benchmarkPair(b, dir, dual) })
		})
	}
}

// benchmarkPair measures a Reserve followed by a Release.
func benchmarkPair(b *testing.B, dir string, r Request) {
	for b.Loop() {
		withOpen(b, dir, func(s *Store) error {
			_, err := s.Reserve(r)
			return err
		})
		withOpen(b, dir, func(s *Store) error { return s.Release(r.Attachment) })
	}
}

// BenchmarkReleaseExcept measures a GC that releases one container in a thousand.
func BenchmarkReleaseExcept(b *testing.B) {
	for _, containers := range []int{1_000, 65_000} {
		b.Run(fmt.Sprint(containers), func(b *testing.B) {
			dir := b.TempDir()
			populate(b, dir, containers)
			s := tryOpen(b, dir)
			defer s.Close()
			var valid []Attachment
			if err := s.view("net", func(n *records.Network) error {
				return n.EachAttachment(func(a Attachment) { valid = append(valid, a) })
			}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := s.ReleaseExcept("net", valid[containers/1000:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBlocks measures a Reserve followed by a Release in a shared pool of which the host owns
// blocks of 64 addresses. All blocks but two are full.
func BenchmarkBlocks(b *testing.B) {
	for _, blocks := range []int{2, 4, 16} {
		b.Run(fmt.Sprint(blocks), func(b *testing.B) {
			dir := b.TempDir()
			s := tryOpen(b, dir)
			var list []Block
			for i := range blocks {
				first := netip.AddrFrom4([4]byte{10, 1, byte(i / 4), byte(64 * (i % 4))})
				list = append(list, Block{Subnet: netip.PrefixFrom(first, 26), Revision: int64(i + 1)})
			}
			if err := s.SetBlocks("net", sinceBoot(b), list); err != nil {
				b.Fatal(err)
			}
			r := Request{Sets: []Set{{complete(b, "10.1.0.0/16")}}, Pool: true}
			for i := range 64*(blocks-2) + 8 {
				r.Attachment = eth0(fmt.Sprint(i))
				if _, err := s.Reserve(r); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			r.Attachment = eth0("new")
			benchmarkPair(b, dir, r)
		})
	}
}
