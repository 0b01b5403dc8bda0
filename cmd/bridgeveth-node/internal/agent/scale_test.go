package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

// BenchmarkLook measures three calls of Look in a cluster of 5,000 nodes: the first call, a call
// that finds no difference, and a call after a node was added. Half of the nodes are reached
// through the tunnel.
func BenchmarkLook(b *testing.B) {
	b.Run("nothing changed", func(b *testing.B) {
		a, _ := bigCluster(b)
		for b.Loop() {
			a.Look()
		}
	})
	b.Run("a node added", func(b *testing.B) {
		a, nodes := bigCluster(b)
		for b.Loop() {
			nodes.all = append(nodes.all, member(len(nodes.all)))
			a.Look()
		}
	})
}

// member returns the node with number i. Nodes with an even number are on the same link as the
// first node.
func member(i int) cluster.Node {
	return cluster.Node{
		Name:      fmt.Sprintf("n%d", i+1),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, byte(30 + i%2), byte(i >> 9), byte(i>>1 + 11)})},
		Ranges:    []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
	}
}

func bigCluster(b *testing.B) (*Agent, *objects) {
	a, nodes := newAgent(b)
	a.Log = slog.New(slog.DiscardHandler)
	nodes.all = nil
	for i := range 5000 {
		nodes.all = append(nodes.all, member(i))
	}
	start := time.Now()
	a.Look()
	b.Logf("first look: %s, %d changes, %q", time.Since(start), a.changes, a.last.reasons)
	return a, nodes
}
