package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

const (
	ownTable        = "bridgeveth"  // of families ip and ip6
	masqueradeChain = "postrouting" // no word of nft(8) itself: a saved ruleset has to load again
)

// masqueraded names a rule, in the comment that nft(8) shows.
func masqueraded(bridge string, subnet netip.Prefix) string {
	return fmt.Sprintf("%s %s", bridge, subnet)
}

// masqueradeLacks lists the subnets that lack their rule.
func (n *Namespace) masqueradeLacks(bridge string, subnets []netip.Prefix) (lacks []lack, err error) {
	for _, subnet := range subnets {
		rules, err := n.masqueradeRules(familyOf(subnet.Addr()))
		if err != nil {
			return nil, err
		}
		if rules[masqueraded(bridge, subnet)] == 0 {
			lacks = append(lacks, lack{
				what: fmt.Sprintf("masquerade of %s behind %s", subnet, bridge),
				mend: func() error { return n.addMasquerade(bridge, subnet) },
			})
		}
	}
	return lacks, nil
}

// EnsureMasquerade gives packets from a bridge's subnets the address of the
// interface that they leave the host by, unless they stay on the bridge or are
// multicast. DeleteMasquerade is its inverse. Two processes at once need a lock:
// see AttachPort.
func (n *Namespace) EnsureMasquerade(bridge string, subnets ...netip.Prefix) error {
	lacks, err := n.masqueradeLacks(bridge, subnets)
	if err != nil {
		return err
	}
	return mend(lacks)
}

// masqueradeRules lists the handles of our rules of a family, by their comments.
func (n *Namespace) masqueradeRules(family int) (map[string]uint64, error) {
	dumped, err := n.dumpChain(family, ownTable, masqueradeChain)
	found := map[string]uint64{}
	for _, attrs := range dumped {
		if comment, ok := userdata.GetString(attrs[unix.NFTA_RULE_USERDATA], userdata.TypeComment); ok {
			found[comment] = binary.BigEndian.Uint64(attrs[unix.NFTA_RULE_HANDLE])
		}
	}
	return found, err
}

// addMasquerade adds table, chain and rule in one transaction.
func (n *Namespace) addMasquerade(bridge string, subnet netip.Prefix) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: ownTable, Family: nftFamily(familyOf(subnet.Addr()))})
	chain := c.AddChain(&nftables.Chain{
		Name: masqueradeChain, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{
		Table: table, Chain: chain, Exprs: masqueradeExprs(bridge, subnet),
		UserData: userdata.AppendString(nil, userdata.TypeComment, masqueraded(bridge, subnet)),
	})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerade %s: %w", subnet, err)
	}
	return nil
}

// masqueradeExprs is, in the words of nft(8):
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr & 240.0.0.0 != 224.0.0.0 counter masquerade
//
// and for IPv6, where multicast is ff00::/8, the like.
func masqueradeExprs(bridge string, subnet netip.Prefix) []expr.Any {
	source, destination, multicastMask, multicast := uint32(12), uint32(16), []byte{240, 0, 0, 0}, []byte{224, 0, 0, 0} // RFC 791
	if subnet.Addr().Is6() {
		source, destination, multicastMask, multicast = 8, 24, []byte{255, 0, 0, 0}, []byte{255, 0, 0, 0} // RFC 8200
	}
	var exprs []expr.Any
	exprs = append(exprs, masked(source, ipNet(subnet).Mask, expr.CmpOpEq, subnet.Masked().Addr().AsSlice())...)
	exprs = append(exprs,
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.PutString(bridge + "\x00")},
	)
	exprs = append(exprs, masked(destination, multicastMask, expr.CmpOpNeq, multicast)...)
	return append(exprs, &expr.Counter{}, &expr.Masq{})
}

// masked compares bytes of the network header under a mask.
func masked(offset uint32, mask []byte, op expr.CmpOp, value []byte) []expr.Any {
	size := uint32(len(mask))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: 1, Data: value},
	}
}

// DeleteMasquerade takes back all masquerade of a bridge and, with the last of
// it, our table.
func (n *Namespace) DeleteMasquerade(bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, n.deleteMasquerade(family, bridge))
	}
	return errors.Join(errs...)
}

func (n *Namespace) deleteMasquerade(family int, bridge string) error {
	all, err := n.masqueradeRules(family)
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: ownTable, Family: nftFamily(family)}
	chain := &nftables.Chain{Name: masqueradeChain, Table: table}
	var ours []*nftables.Rule
	for comment, handle := range all {
		if strings.HasPrefix(comment, bridge+" ") {
			ours = append(ours, &nftables.Rule{Table: table, Chain: chain, Handle: handle})
		}
	}
	if len(ours) == 0 {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	if len(all) == len(ours) {
		c.DelTable(table)
	} else {
		for _, r := range ours {
			err = errors.Join(err, c.DelRule(r))
		}
	}
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete masquerade of %s: %w", bridge, err)
	}
	return nil
}
