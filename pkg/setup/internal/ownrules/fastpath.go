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

// flowtable is the name of the flowtable in our tables for IPv4 and for IPv6. All networks with a fast path
// share this flowtable, because a table cannot have the same device in two flowtables.
const flowtable = "fastpath"

// fastPathTries is the greatest number of times that addFastPath sends its transaction.
const fastPathTries = 5

// fastPath is the chain whose rules add flows to the flowtable. It runs after all chains that filter forwarded
// packets. Therefore a packet that reaches fastPath was accepted by all of these chains.
var fastPath = chain{"fastpath", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityConntrackHelper}

// fastPathRules returns the rules that add the flows of a bridge to the flowtable. In the syntax of nft(8):
//
//	ct direction reply ct state established iifname BRIDGE oifname != BRIDGE flow add @fastpath
//	ct direction reply ct state established iifname != BRIDGE oifname BRIDGE flow add @fastpath
//
// The rules match only replies, because a reply in this chain shows that the chains accept both directions. They
// accepted the first packet of the connection: conntrack keeps no connection whose first packet was dropped.
// They also accepted the reply, because fastPath runs after them.
func fastPathRules(net *plan.Network) (rules []ownRule) {
	name := net.RoutedBy()
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		in, out := expr.CmpOpEq, expr.CmpOpNeq
		if key == expr.MetaKeyOIFNAME {
			in, out = out, in
		}
		rules = append(rules, ownRule{
			chain: fastPath, comment: net.Comment("fastpath", nft.Direction(key)),
			exprs: slices.Concat(nft.AnsweredReply(), nft.InterfaceIs(expr.MetaKeyIIFNAME, in, name),
				nft.InterfaceIs(expr.MetaKeyOIFNAME, out, name), []expr.Any{&expr.FlowOffload{Name: flowtable}}),
		})
	}
	return rules
}

// missingFastPath compares the flowtable of a family and the rules of the chain fastPath with the plan of a
// network. It recognizes rules by their comments. The devices of the flowtable must include the links through
// which the host reaches other networks.
func missingFastPath(n *netns.Namespace, net *plan.Network, family int, present map[string][]uint64) (missing []plan.Difference, err error) {
	prefix := net.Comment("fastpath") + " "
	devices, wanted, err := fastPathDevices(n, net.FastPath, family)
	if err != nil {
		return nil, err
	}
	if !wanted {
		for comment := range present {
			if strings.HasPrefix(comment, prefix) {
				return []plan.Difference{{What: fmt.Sprintf("no fast path of %s for %s", net.RoutedBy(), ipVersion(family)), Restore: func() error { return deleteFastPath(n, family, prefix) }}}, nil
			}
		}
		return nil, nil
	}
	f, err := fastPathFeature(n, net, family)
	if err != nil {
		return nil, err
	}
	restore := func() error { return addFastPath(n, net, f) }
	for _, device := range f.devices {
		if !slices.Contains(devices, device) {
			missing = append(missing, plan.Difference{What: fmt.Sprintf("device %s in the flowtable %s for %s", device, flowtable, ipVersion(family)), Restore: restore})
		}
	}
	if found := (foundRules{fastPath.Name: present}); !found.have(f.rules) {
		missing = append(missing, plan.Difference{What: f.what, Restore: restore})
	}
	return missing, nil
}

// ipVersion returns the name of an address family, IPv4 or IPv6, for messages.
func ipVersion(family int) string {
	if family == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}

// fastPathFeature returns the feature of a network's fast path. The feature has the rules for the table of a
// family, and the devices that the flowtable needs: the bridge, and the links through which the host reaches
// other networks.
func fastPathFeature(n *netns.Namespace, net *plan.Network, family int) (feature, error) {
	f := feature{what: fmt.Sprintf("fast path of %s for %s", net.RoutedBy(), ipVersion(family)), family: family, rules: fastPathRules(net)}
	var err error
	if f.devices, err = rtnl.Uplinks(n, family); err == nil && !slices.Contains(f.devices, net.RoutedBy()) { // the bridge has a route only after it has a gateway address
		f.devices = append(f.devices, net.RoutedBy())
	}
	return f, err
}

// addFastPath adds the fast path of a network. The parameter f is the result of fastPathFeature. The kernel
// refuses the whole transaction with ENOENT if another program has deleted or renamed one of the devices.
// addFastPath then calls fastPathFeature again, which reads the present devices, and repeats the transaction.
func addFastPath(n *netns.Namespace, net *plan.Network, f feature) error {
	add := func() (err error) {
		if needsLowest() {
			f.devices, err = withLowest(n, f.devices, net.Bridge)
		}
		if err == nil {
			err = addFeature(n, f)
		}
		return err
	}
	err := add()
	for tries := 1; errors.Is(err, unix.ENOENT) && tries < fastPathTries; tries++ {
		if f, err = fastPathFeature(n, net, f.family); err == nil {
			err = add()
		}
	}
	return err
}

// fastPathDevices returns the present devices of the flowtable. The result wanted is false for FastPathOff, and
// for FastPathAuto on a kernel without flowtables.
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

// HasFlowtable reports whether our table of a family has the flowtable.
func HasFlowtable(n *netns.Namespace, family int) (exists bool, err error) {
	_, exists, err = nft.FlowtableDevices(n, family, flowtable)
	return exists, err
}

// deleteFastPath deletes the rules of the fast path whose comments begin with prefix. If the chain then has no
// rules, it also deletes the chain and the flowtable. An unused flowtable would cost a lookup for every packet
// that arrives on one of its devices.
func deleteFastPath(n *netns.Namespace, family int, prefix string) error {
	err := nft.Modify(n, table(family), func(c *nft.Change) error {
		present, err := Rules(n, family)
		removeFastPath(c, present[fastPath.Name], prefix)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete the fast path of %s: %w", prefix, err)
	}
	return nil
}

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
