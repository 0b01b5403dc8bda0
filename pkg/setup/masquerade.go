package setup

import (
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
	ownTable        = "bridgeveth" // of families ip and ip6
	masqueradeChain = "masquerade"
)

// masqueraded names a rule, in the comment that nft(8) shows.
func masqueraded(bridge string, subnet netip.Prefix) string {
	return fmt.Sprintf("%s %s", bridge, subnet)
}

// masqueradeLacks lists the subnets that lack their rule.
func (n *Namespace) masqueradeLacks(bridge string, subnets []netip.Prefix) (lacks []lack, err error) {
	for _, subnet := range subnets {
		rules, err := n.masqueradeRules(familyOf(subnet.Addr()), masqueraded(bridge, subnet))
		if err != nil {
			return nil, err
		}
		if len(rules) == 0 {
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

// masqueradeRules lists our rules of a family whose comment begins as given.
func (n *Namespace) masqueradeRules(family int, comment string) (found []*nftables.Rule, err error) {
	c, err := n.nft()
	if err != nil {
		return nil, err
	}
	table := &nftables.Table{Name: ownTable, Family: nftFamily(family)}
	all, err := c.GetRules(table, &nftables.Chain{Name: masqueradeChain})
	if err != nil {
		return nil, fmt.Errorf("read nf_tables chain %s: %w", masqueradeChain, err)
	}
	for _, r := range all {
		if text, _ := userdata.GetString(r.UserData, userdata.TypeComment); strings.HasPrefix(text, comment) {
			found = append(found, r)
		}
	}
	return found, nil
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
	ours, err := n.masqueradeRules(family, bridge+" ")
	if err != nil || len(ours) == 0 {
		return err
	}
	all, err := n.masqueradeRules(family, "")
	if err != nil {
		return err
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	if len(all) == len(ours) {
		c.DelTable(&nftables.Table{Name: ownTable, Family: nftFamily(family)})
	} else {
		for _, r := range ours {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("delete masquerade of %s: %w", bridge, err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete masquerade of %s: %w", bridge, err)
	}
	return nil
}
