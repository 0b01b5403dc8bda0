package ownrules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// The chain in which the reference plugin portmap has a rule for each container with host
// ports. nerdctl reads it to learn which ones are taken (pkg/portutil/iptable), and cannot
// see our maps. So they are listed there too, in the words of iptables(8),
//
//	-A CNI-HOSTPORT-DNAT -p tcp -m tcp -m multiport --dports 8080,8443 -m comment --comment "PORT bridgeveth/NETWORK/CONTAINER/INTERFACE"
//
// by rules that do nothing, in a chain that no packet comes to unless portmap itself is used
// beside ours. The chain goes with its last rule; the table is iptables', and stays.
const (
	listTable = "nat"
	listChain = "CNI-HOSTPORT-DNAT"

	listedPorts = 15 // XT_MULTI_PORTS in linux/netfilter/xt_multiport.h
)

// ListHostPorts lists the host ports of a port, those of TCP and UDP that are for IPv4, unless
// they are listed already.
func ListHostPorts(n *netns.Namespace, p *plan.Port) error {
	want, owner := listed(p), portComment(p.Attachment)
	if len(want) == 0 {
		return nil
	}
	lock, err := n.Lock(flock.Exclusive) // a chain is deleted with rules that have come into it meanwhile
	if err != nil {
		return err
	}
	defer lock.Unlock()
	rules, err := nft.Rules(n, unix.AF_INET, listTable, listChain)
	if err != nil || slices.ContainsFunc(rules, func(r netns.Attrs) bool { return nft.Comment(r) == owner }) {
		return err
	}
	c, err := nft.Conn(n)
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Name: listTable, Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: listChain, Table: t})
	for protocol, ports := range want {
		for some := range slices.Chunk(ports, listedPorts) {
			c.AddRule(&nftables.Rule{
				Table: t, Chain: chain, Exprs: multiport(protocol, some),
				UserData: userdata.AppendString(nil, userdata.TypeComment, owner),
			})
		}
	}
	err = c.Flush()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // the kernel is without what iptables-nft needs, so nobody can read it by that
	}
	if err != nil {
		return fmt.Errorf("list host ports in chain %s: %w", listChain, err)
	}
	return nil
}

// listed are the ports to be listed, by protocol.
func listed(p *plan.Port) map[uint8][]uint16 {
	ports := map[uint8][]uint16{}
	for _, h := range p.HostPorts {
		if !h.Address.Is6() && h.Protocol != unix.IPPROTO_SCTP && !slices.Contains(ports[h.Protocol], h.Port) {
			ports[h.Protocol] = append(ports[h.Protocol], h.Port)
		}
	}
	return ports
}

// UnlistHostPorts takes the chosen ones off the list.
func UnlistHostPorts(n *netns.Namespace, gone func(PortOwner) bool) error {
	chosen := func(r netns.Attrs) bool { return gone(parseOwner(nft.Comment(r))) }
	rules, err := nft.Rules(n, unix.AF_INET, listTable, listChain)
	if err != nil || !slices.ContainsFunc(rules, chosen) {
		return err
	}
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	left, err := unlist(n, chosen)
	if errors.Is(err, unix.ENOENT) { // so does nerdctl, after DEL
		left, err = unlist(n, chosen)
	}
	if err != nil || left > 0 {
		return err
	}
	c, err := nft.Conn(n)
	if err != nil {
		return err
	}
	c.DelChain(&nftables.Chain{Name: listChain, Table: &nftables.Table{Name: listTable, Family: nftables.TableFamilyIPv4}})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) { // EBUSY: portmap jumps to it
		return fmt.Errorf("delete chain %s: %w", listChain, err)
	}
	return nil
}

// unlist deletes the chosen rules of the chain, and says how many are left.
func unlist(n *netns.Namespace, chosen func(netns.Attrs) bool) (left int, err error) {
	rules, err := nft.Rules(n, unix.AF_INET, listTable, listChain)
	if err != nil {
		return 0, err
	}
	c, err := nft.Conn(n)
	if err != nil {
		return 0, err
	}
	var gone []uint64
	for _, r := range rules {
		if chosen(r) {
			gone = append(gone, nft.Handle(r))
		}
	}
	chain := &nftables.Chain{Name: listChain, Table: &nftables.Table{Name: listTable, Family: nftables.TableFamilyIPv4}}
	err = nft.DeleteRules(c, chain, gone)
	if err := errors.Join(err, c.Flush()); err != nil {
		return 0, fmt.Errorf("take host ports off chain %s: %w", listChain, err)
	}
	return len(rules) - len(gone), nil
}

// VerifyListed says whether the host ports of a port are listed. Without the chain, none can
// be: see ListHostPorts.
func VerifyListed(n *netns.Namespace, p *plan.Port) error {
	exists, err := nft.HasChain(n, unix.AF_INET, listTable, listChain)
	if err != nil || !exists || len(listed(p)) == 0 {
		return err
	}
	rules, err := nft.Rules(n, unix.AF_INET, listTable, listChain)
	if err != nil {
		return err
	}
	owner := portComment(p.Attachment)
	found := slices.ContainsFunc(rules, func(r netns.Attrs) bool { return nft.Comment(r) == owner })
	return plan.Differ("host ports in chain "+listChain, found, true)
}

// multiport matches packets to ports, as iptables-nft writes and reads it.
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
		of, // by which the kernel knows that the next one is in its place
		&expr.Match{Name: "multiport", Rev: 1, Info: &info},
		&expr.Counter{},
	}
}
