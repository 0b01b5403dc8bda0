package bridges

import (
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A container may send from any number of MAC addresses. The bridge stores each address for five
// minutes, so one container could use up the memory of the host. A bridge that we create therefore
// learns at most maxLearned addresses. Packets still arrive when the limit is reached, because the
// bridge floods frames to addresses that it has not learned.
//
// A bridge does not forward frames whose destination is in the range from 01:80:c2:00:00:01 to
// 01:80:c2:00:00:0f, for example LLDP frames. These frames do not pass the prerouting hook, so the guard of
// a port does not check them. The bridge learns their source addresses (br_handle_frame in
// net/bridge/br_input.c), unless no_linklocal_learn is set. If the bridge uses spanning tree, the same
// applies to BPDUs (frames to 01:80:c2:00:00:00). Therefore a bridge that we create has no_linklocal_learn
// set.

// maxLearned is the number of MAC addresses that a bridge of ours can learn. This is four addresses
// for each port, because virtual machines and macvlan links in a container have their own MAC
// addresses.
const maxLearned = 4096

// MissingLearning returns the missing settings that limit what a bridge of ours learns. For a bridge of
// another program it returns nothing. Any limit is sufficient, because an administrator may have set another
// limit than maxLearned.
func MissingLearning(n *netns.Namespace, br rtnl.Link) (missing []plan.Difference) {
	if !br.Own {
		return nil
	}
	add := func(what string, change func() error) {
		missing = append(missing, plan.Difference{What: what + " of bridge " + br.Name, Restore: change, Newer: true})
	}
	if br.LearnsUnlimited {
		add("limit of learned addresses", func() error { return rtnl.ChangeBridge(n, br.Name, rtnl.LearnAtMost(maxLearned)) })
	}
	if br.LearnsLinkLocal {
		add("no_linklocal_learn", func() error { return rtnl.ChangeBridge(n, br.Name, rtnl.NoLinkLocalLearning()) })
	}
	return missing
}
