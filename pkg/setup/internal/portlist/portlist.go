package portlist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// listChain is the chain in which the reference plugin portmap has a rule for each container with host
// ports. nerdctl reads this chain to find out which host ports are in use (pkg/portutil/iptable). It
// cannot read our maps. Therefore this package adds a rule for our host ports to the chain, as
// iptables(8) prints it:
//
//	-A CNI-HOSTPORT-DNAT -p tcp -m tcp -m multiport --dports 8080,8443 -m comment --comment "PORT bridgeveth/NETWORK/CONTAINER/INTERFACE"
//
// The rule does nothing. Packets reach the chain only if the reference plugin portmap is also used.
// Remove deletes the chain if it is empty, but never the table, which belongs to iptables.
const (
	listChain    = "CNI-HOSTPORT-DNAT"
	maxRulePorts = 15 // in one rule: XT_MULTI_PORTS in linux/netfilter/xt_multiport.h

	multiportRevision = 1 // struct xt_multiport_v1
)

// listTable is the table of listChain.
var listTable = &nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4}

// Add adds the host ports of a bridge port to the list, unless the list already has them. It lists
// only host ports of TCP and UDP for IPv4.
func Add(n *netns.Namespace, p *plan.Port) error {
	want, owner := portsToList(p), elements.Comment(p.Attachment)
	if len(want) == 0 {
		return nil
	}
	lock, err := n.Lock(flock.Exclusive) // with the lock, Remove cannot delete the chain meanwhile
	if err != nil {
		return err
	}
	defer lock.Unlock()
	err = nft.Modify(n, listTable, func(c *nft.Change) error {
		handles, complete, err := rulesOf(n, owner)
		if err != nil || complete {
			return err
		}
		c.AddTable()
		c.AddChain(&nftables.Chain{Name: listChain})
		c.DeleteRules(listChain, handles)
		for protocol, ports := range want {
			for some := range slices.Chunk(ports, maxRulePorts) {
				c.AddRule(nft.Rule{Chain: listChain, Comment: owner, Exprs: multiport(protocol, some)})
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // the kernel does not support iptables-nft, so no program can read the list
	}
	if err != nil {
		return fmt.Errorf("list host ports in chain %s: %w", listChain, err)
	}
	return nil
}

// rulesOf returns the handles of the rules in the list that have this owner as their comment. The
// result complete is true if there is such a rule and iptables can read the ports of all such rules.
// iptables cannot read the ports after nft(8) has loaded a saved ruleset, because nft(8) saves the
// match multiport in its own syntax.
func rulesOf(n *netns.Namespace, owner string) (handles []uint64, complete bool, err error) {
	rules, err := nft.Rules(n, unix.AF_INET, listTable.Name, listChain)
	complete = true
	for _, r := range rules {
		if nft.Comment(r) == owner {
			handles = append(handles, nft.Handle(r))
			_, readable := nft.Match(r, "multiport")
			complete = complete && readable
		}
	}
	return handles, complete && len(handles) > 0, err
}

// portsToList returns the host ports of p that belong in the list. The keys of the map are
// protocols (IPPROTO_*).
func portsToList(p *plan.Port) map[uint8][]uint16 {
	ports := map[uint8][]uint16{}
	for _, h := range p.HostPorts {
		if !h.Address.Is6() && h.Protocol != unix.IPPROTO_SCTP && !slices.Contains(ports[h.Protocol], h.Port) {
			ports[h.Protocol] = append(ports[h.Protocol], h.Port)
		}
	}
	return ports
}

// Remove deletes from the list the rules of all owners that the function gone selects.
func Remove(n *netns.Namespace, gone func(elements.Owner) bool) error {
	chosen := func(r netns.Attrs) bool { return gone(elements.ParseOwner(nft.Comment(r))) }
	rules, err := nft.Rules(n, unix.AF_INET, listTable.Name, listChain)
	if err != nil || !slices.ContainsFunc(rules, chosen) {
		return err
	}
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	left, err := unlist(n, chosen)
	if err != nil || left > 0 {
		return err
	}
	c := nft.NewChange(listTable)
	c.DeleteChain(listChain)
	if err := c.Send(n, nft.AnyGeneration); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) { // on EBUSY, the chain stays because a rule of the reference plugin portmap jumps to it
		return fmt.Errorf("delete chain %s: %w", listChain, err)
	}
	return nil
}

// unlist deletes the rules of listChain that the function chosen selects, and returns how many rules
// are left. Other programs may delete the same rules meanwhile: nerdctl does so after DEL.
func unlist(n *netns.Namespace, chosen func(netns.Attrs) bool) (left int, err error) {
	err = nft.Modify(n, listTable, func(c *nft.Change) error {
		rules, err := nft.Rules(n, unix.AF_INET, listTable.Name, listChain)
		var gone []uint64
		for _, r := range rules {
			if chosen(r) {
				gone = append(gone, nft.Handle(r))
			}
		}
		c.DeleteRules(listChain, gone)
		left = len(rules) - len(gone)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete host ports from chain %s: %w", listChain, err)
	}
	return left, nil
}

// Verify returns an error if the list lacks host ports of p. It returns nil if the kernel does not
// support iptables-nft, because Add then adds nothing.
func Verify(n *netns.Namespace, p *plan.Port) error {
	if len(portsToList(p)) == 0 {
		return nil
	}
	_, complete, err := rulesOf(n, elements.Comment(p.Attachment))
	if err == nil && !complete && !nft.HasMatch(n, "multiport", multiportRevision) {
		return nil
	}
	return errors.Join(err, plan.Differ("host ports in chain "+listChain, complete, true))
}

// multiport matches packets to these ports, with the iptables matches that iptables-nft writes and
// reads.
func multiport(protocol uint8, ports []uint16) []expr.Any {
	const destination = 1                                                  // XT_MULTIPORT_DESTINATION
	info := append(make(xt.Unknown, 0, 48), destination, byte(len(ports))) // struct xt_multiport_v1
	for _, port := range ports {
		info = binary.NativeEndian.AppendUint16(info, port)
	}
	info = info[:cap(info)]
	all := [2]uint16{0, 65535}
	of := &expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: all, DstPorts: all}}
	if protocol == unix.IPPROTO_UDP {
		of = &expr.Match{Name: "udp", Info: &xt.Udp{SrcPorts: all, DstPorts: all}}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		of, // the kernel accepts multiport only after a match on the protocol
		&expr.Match{Name: "multiport", Rev: multiportRevision, Info: &info},
		&expr.Counter{},
	}
}
