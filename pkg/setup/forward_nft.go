package setup

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// nft returns a connection to the namespace's nf_tables, opened at its first use.
func (n *Namespace) nft() (*nftables.Conn, error) {
	if n.nftConn == nil {
		c, err := nftables.New(nftables.WithNetNSFd(int(n.handle)), nftables.AsLasting())
		if err != nil {
			return nil, fmt.Errorf("open nf_tables: %w", err)
		}
		n.nftConn = c
	}
	return n.nftConn, nil
}

// nftFamily is a family as nf_tables counts them.
func nftFamily(family int) nftables.TableFamily {
	if family == unix.AF_INET6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// readNFT reads the filter table that iptables-nft keeps: two dumps of one chain
// each, well under a millisecond.
func (n *Namespace) readNFT(family int) (t xtables, err error) {
	t = xtables{flavour: "nft", family: family}
	if t.forward, err = n.nftRules(family, filterTable, forwardBase); err != nil {
		return t, err
	}
	if t.inForce = len(t.forward) > 0; !t.inForce {
		t.inForce, err = n.hasNFTChain(family, filterTable, forwardBase)
		return t, err // without the jump, what our chain holds does not matter
	}
	t.own, err = n.nftRules(family, filterTable, forwardChain)
	return t, err
}

// nftRules reads the rules of a chain; a chain that does not exist has none.
func (n *Namespace) nftRules(family int, table, chain string) (rules []rule, err error) {
	c, err := n.nft()
	if err != nil {
		return nil, err
	}
	found, err := c.GetRules(&nftables.Table{Name: table, Family: nftFamily(family)}, &nftables.Chain{Name: chain})
	if err != nil {
		return nil, fmt.Errorf("read nf_tables chain %s: %w", chain, err)
	}
	for _, r := range found {
		rules = append(rules, parseNFT(r.Exprs))
	}
	return rules, nil
}

// hasNFTChain says whether a chain exists.
func (n *Namespace) hasNFTChain(family int, table, chain string) (bool, error) {
	c, err := n.nft()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftFamily(family))
	if err != nil {
		return false, fmt.Errorf("list nf_tables chains: %w", err)
	}
	for _, found := range chains {
		if found.Table.Name == table && found.Name == chain {
			return true, nil
		}
	}
	return false, nil
}

// parseNFT reads a rule as iptables-nft writes it: native expressions for
// interfaces and verdicts, an xt match for conntrack.
func parseNFT(exprs []expr.Any) (r rule) {
	var key expr.MetaKey
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			key = e.Key
		case *expr.Cmp:
			// Without the zero byte it is only the beginning of a name, as in "eth+".
			name, whole := bytes.CutSuffix(e.Data, []byte{0})
			switch {
			case e.Op != expr.CmpOpEq || !whole:
				r.other = true
			case key == expr.MetaKeyIIFNAME:
				r.in = text(name, len(name))
			case key == expr.MetaKeyOIFNAME:
				r.out = text(name, len(name))
			default:
				r.other = true
			}
		case *expr.Match:
			if info, ok := e.Info.(*xt.ConntrackMtinfo3); ok {
				r.states = info.StateMask
			} else {
				r.other = true
			}
		case *expr.Verdict:
			r.target = e.Chain
			if e.Kind == expr.VerdictAccept {
				r.target = accept
			}
		case *expr.Counter:
		default:
			r.other = true
		}
	}
	return r
}
