package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// withoutConflicts removes from the nodes the ranges that must not be routed (see refused), and
// returns a problem for each removed range. If the ranges of two nodes overlap, only the older node
// keeps its range, because its pods used the range first. All agents use this rule, so they keep
// the same ranges.
func withoutConflicts(nodes []Node, locals []Local, self string, set Settings) ([]Node, []Problem) {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	taken, held := overlaps(nodes), holders(nodes)
	var problems []Problem
	for i, n := range nodes {
		nodes[i].Ranges = slices.DeleteFunc(slices.Clone(n.Ranges), func(r netip.Prefix) bool {
			text := refused(r, n, held, locals, set)
			if other, ok := taken[claim{r, i}]; text == "" && ok {
				text = fmt.Sprintf("%v overlaps with %v of the older node %s; delete this Node object and let the kubelet make another one", r, other.prefix, nodes[other.node].Name)
			}
			if text == "" {
				return false
			}
			problems = append(problems, Problem{n.Name, n.Name == self, "spec.podCIDRs: " + text})
			return true
		})
	}
	return nodes, problems
}

// refused returns the reason why a range must not be used, or "" if it may be used. It does not
// compare the range with the pod ranges of other nodes.
func refused(r netip.Prefix, n Node, held []holder, locals []Local, set Settings) string {
	first, _ := slices.BinarySearchFunc(held, r.Addr(), func(h holder, a netip.Addr) int { return h.address.Compare(a) })
	if first < len(held) && r.Contains(held[first].address) {
		whose := "of node " + held[first].node
		if held[first].node == n.Name {
			whose = "of this node"
		}
		return fmt.Sprintf("%v contains %v, the InternalIP %s; give --cluster-cidr of kube-controller-manager a range that no node is in", r, held[first].address, whose)
	}
	for _, s := range set.ServiceCIDRs {
		if r.Overlaps(s) {
			return fmt.Sprintf("%v overlaps with the service range %v; give --cluster-cidr of kube-controller-manager another range", r, s)
		}
	}
	for _, l := range locals {
		if r.Overlaps(l.Subnet) {
			return fmt.Sprintf("%v overlaps with %v of link %s; change the subnet of that link, or the cluster's range", r, l.Subnet, l.Link)
		}
	}
	return ""
}

// holder is an InternalIP together with its node.
type holder struct {
	address netip.Addr
	node    string
}

// holders returns all InternalIPs, sorted by address.
func holders(nodes []Node) (all []holder) {
	for _, n := range nodes {
		for _, a := range n.Addresses {
			all = append(all, holder{a, n.Name})
		}
	}
	slices.SortFunc(all, func(a, b holder) int { return a.address.Compare(b.address) })
	return all
}

// claim is a pod range together with the index of its node in the list of nodes.
type claim struct {
	prefix netip.Prefix
	node   int
}

// overlaps finds the ranges that overlap a range of another node. The key of the map is the range
// of the node that comes later in the list, and the value is the range of the earlier node.
func overlaps(nodes []Node) map[claim]claim {
	var all []claim
	for i, n := range nodes {
		for _, r := range n.Ranges {
			all = append(all, claim{r, i})
		}
	}
	// In this order, a range comes directly before all ranges that are inside it.
	slices.SortFunc(all, func(a, b claim) int { return cmp.Or(a.prefix.Compare(b.prefix), a.node-b.node) })
	taken := map[claim]claim{}
	var around []claim
	for _, c := range all {
		around = slices.DeleteFunc(around, func(o claim) bool { return !o.prefix.Contains(c.prefix.Addr()) })
		for _, o := range around {
			if o.node < c.node {
				taken[c] = o
			} else if o.node > c.node {
				taken[o] = c
			}
		}
		around = append(around, c)
	}
	return taken
}

// join returns the shortest sorted list of prefixes that covers the same addresses as the given
// prefixes.
func join(prefixes []netip.Prefix) (joined []netip.Prefix) {
	prefixes = slices.Clone(prefixes)
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for _, p := range prefixes {
		if n := len(joined); n > 0 && joined[n-1].Contains(p.Addr()) {
			continue
		}
		joined = append(joined, p)
		for n := len(joined); n > 1; n-- { // replace two halves of a range by the range
			a, b := joined[n-2], joined[n-1]
			whole := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if a.Bits() != b.Bits() || a.Bits() == 0 || !whole.Contains(b.Addr()) || a.Addr() != whole.Addr() {
				break
			}
			joined = append(joined[:n-2], whole)
		}
	}
	return joined
}
