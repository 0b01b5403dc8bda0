package ownrules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// flowtable is the name of the flowtable in our tables of IPv4 and IPv6. All networks with a fast path
// share it, because a table may have a device in one flowtable only.
const flowtable = "fastpath"

// fastPath is the chain whose rules add flows to the flowtable. It comes after all chains that filter
// forwarded packets: a packet that reaches this chain was accepted by all of them.
var fastPath = chain{"fastpath", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityConntrackHelper}

// fastPathRules returns the rules that add the flows of a bridge to the flowtable. In the words of nft(8):
//
//	iifname BRIDGE oifname != BRIDGE ct direction reply ct state established flow add @fastpath
//	iifname != BRIDGE oifname BRIDGE ct direction reply ct state established flow add @fastpath
//
// The rules match replies only. A reply shows that the chains accept the packets of both directions,
// because conntrack knows no connection whose first packet was dropped. A rule that drops replies keeps
// their flow out of the flowtable.
func fastPathRules(net *plan.Network) (rules []ownRule) {
	name := net.RoutedBy()
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		in, out := expr.CmpOpEq, expr.CmpOpNeq
		if key == expr.MetaKeyOIFNAME {
			in, out = out, in
		}
		rules = append(rules, ownRule{
			chain: fastPath, comment: net.Comment("fastpath", nft.Direction(key)),
			exprs: slices.Concat(nft.InterfaceIs(expr.MetaKeyIIFNAME, in, name), nft.InterfaceIs(expr.MetaKeyOIFNAME, out, name),
				nft.AnsweredReply(), []expr.Any{&expr.FlowOffload{Name: flowtable}}),
		})
	}
	return rules
}

// missingFastPath compares the flowtable of a family and the rules of its chain, by comment, with the plan
// of a network. The flowtable also has the links that routes to other networks leave by.
func missingFastPath(n *netns.Namespace, net *plan.Network, family int, present map[string][]uint64) (missing []plan.Difference, err error) {
	prefix, version := net.Comment("fastpath")+" ", map[int]int{unix.AF_INET: 4, unix.AF_INET6: 6}[family]
	devices, wanted, err := fastPathDevices(n, net.FastPath, family)
	if err != nil {
		return nil, err
	}
	if !wanted {
		for comment := range present {
			if strings.HasPrefix(comment, prefix) {
				return []plan.Difference{{What: fmt.Sprintf("no fast path of %s for IPv%d", net.RoutedBy(), version), Restore: func() error { return deleteFastPath(n, family, prefix) }}}, nil
			}
		}
		return nil, nil
	}
	needed, err := rtnl.Uplinks(n, family)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(needed, net.RoutedBy()) { // the bridge has no route yet
		needed = append(needed, net.RoutedBy())
	}
	f := feature{what: fmt.Sprintf("fast path of %s for IPv%d", net.RoutedBy(), version), family: family, rules: fastPathRules(net), devices: needed}
	restore := func() error { return addFeature(n, f) }
	for _, device := range needed {
		if !slices.Contains(devices, device) {
			missing = append(missing, plan.Difference{What: fmt.Sprintf("device %s in the flowtable %s for IPv%d", device, flowtable, version), Restore: restore})
		}
	}
	if found := (foundRules{fastPath.Name: present}); !found.have(f.rules) {
		missing = append(missing, plan.Difference{What: f.what, Restore: restore})
	}
	return missing, nil
}

// fastPathDevices returns the devices of the flowtable. wanted reports whether the network has a fast path
// on this host.
func fastPathDevices(n *netns.Namespace, choice plan.FastPath, family int) (devices []string, wanted bool, err error) {
	if choice == plan.FastPathOff {
		return nil, false, nil
	}
	devices, exists, err := nft.FlowtableDevices(n, family, flowtable)
	if err == nil && !exists {
		err = nft.CheckFlowtables(n)
		if errors.Is(err, nft.ErrNoFlowtables) && choice == plan.FastPathAuto {
			return nil, false, nil
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("fastPath: %w", err)
	}
	return devices, true, nil
}

// deleteFastPath deletes the rules whose comments begin with prefix. With the last rule of the chain it
// deletes the chain and the flowtable, whose hooks every packet of an uplink passes.
func deleteFastPath(n *netns.Namespace, family int, prefix string) error {
	present, err := Rules(n, family)
	if err != nil {
		return err
	}
	c := nft.NewChange(table(family))
	if removeFastPath(c, present[fastPath.Name], prefix); c.Empty() {
		return nil
	}
	if err := c.Send(n, nft.AnyGeneration); err != nil {
		return fmt.Errorf("delete the fast path of %s: %w", prefix, err)
	}
	return nil
}

// removeFastPath adds to a transaction what deleteFastPath does.
func removeFastPath(c *nft.Change, present map[string][]uint64, prefix string) {
	others := false
	for comment, handles := range present {
		if strings.HasPrefix(comment, prefix) {
			c.DeleteRules(fastPath.Name, handles)
		} else {
			others = true
		}
	}
	if !others && len(present) > 0 {
		c.DeleteChain(fastPath.Name)
		c.DeleteFlowtable(flowtable)
	}
}
