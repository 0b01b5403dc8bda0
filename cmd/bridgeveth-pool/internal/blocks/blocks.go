// Package blocks divides the ranges of a network into blocks of equal size. It is arithmetic and
// makes no calls.
package blocks

import (
	"hash/fnv"
	"iter"
	"math/big"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// Pool contains the blocks of one set of ranges.
type Pool struct {
	Set  ipam.Set
	Bits int // prefix length of a block; not shorter than that of any subnet of the set
}

// From returns the pool's blocks that contain an address for containers. The order begins at a
// block that depends on seed, and goes through the pool from there. Hosts with different seeds thus
// rarely try to claim the same block.
func (p Pool) From(seed string) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		var count []*big.Int // number of blocks of each range
		all := new(big.Int)
		for _, r := range p.Set {
			n := new(big.Int)
			if !r.OnRequest {
				n.Sub(p.index(r.End), p.index(r.Start)).Add(n, big.NewInt(1))
			}
			count = append(count, n)
			all.Add(all, n)
		}
		if all.Sign() == 0 {
			return
		}
		hash := fnv.New128a()
		_, _ = hash.Write([]byte(seed)) // cannot fail
		at := new(big.Int).SetBytes(hash.Sum(nil))
		at.Mod(at, all)
		for left := new(big.Int).Set(all); left.Sign() > 0; left.Sub(left, big.NewInt(1)) {
			r, n := 0, new(big.Int).Set(at)
			for ; n.Cmp(count[r]) >= 0; r++ {
				n.Sub(n, count[r])
			}
			b := p.block(n.Add(n, p.index(p.Set[r].Start)), p.Set[r].Start.Is4())
			if usable(p.Set[r], b) && !yield(b) {
				return
			}
			at.Mod(at.Add(at, big.NewInt(1)), all)
		}
	}
}

// Contains reports whether a subnet is a block of the pool that contains an address for containers.
func (p Pool) Contains(b netip.Prefix) bool {
	return b.Bits() == p.Bits && slices.ContainsFunc(p.Set, func(r ipam.Range) bool {
		return !r.OnRequest && usable(r, b)
	})
}

// Of returns the block that contains an address. It reports whether a container can have the address,
// by a request or not.
func (p Pool) Of(a netip.Addr) (b netip.Prefix, ok bool) {
	if p.Set.Serves(a) {
		b, _ = a.Prefix(p.Bits) // the address is of the set's family
	}
	return b, b.IsValid()
}

// index returns the number of the block that contains an address. Block 0 begins at the address 0.
func (p Pool) index(a netip.Addr) *big.Int {
	n := new(big.Int).SetBytes(a.AsSlice())
	return n.Rsh(n, uint(a.BitLen()-p.Bits))
}

// block is the inverse of index.
func (p Pool) block(index *big.Int, is4 bool) netip.Prefix {
	size := 16
	if is4 {
		size = 4
	}
	n := new(big.Int).Lsh(index, uint(8*size-p.Bits))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, size)))
	return netip.PrefixFrom(a, p.Bits)
}

// usable reports whether a range and a block have an address in common that is not the gateway.
func usable(r ipam.Range, b netip.Prefix) bool {
	a := b.Addr()
	if a.Less(r.Start) {
		a = r.Start
	}
	if a == r.Gateway {
		a = a.Next()
	}
	return b.Contains(a) && r.Contains(a)
}
