package bridges

import (
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A container may send from any number of MAC addresses. The bridge stores each address for five
// minutes, so one container could use up the memory of the host. A bridge that we create therefore
// learns a limited number of addresses. When the limit is reached, packets still arrive, because the
// bridge floods frames for addresses that it has not learned.
//
// A bridge does not forward frames to 01:80:c2:00:00:01 to :0F, such as those of LLDP (:0E). Such frames do
// not pass the prerouting hook, so the guard of a port does not see them. The bridge learns from them
// (br_handle_frame in net/bridge/br_input.c), unless no_linklocal_learn is set. A bridge that we create has
// this setting. Frames to :00 are BPDUs. They pass the hook only if the bridge has no spanning tree.

// maxLearned is the number of MAC addresses that a bridge that we create can learn. It is four for each
// port, because virtual machines and MACVLANs in a container have MAC addresses of their own.
const maxLearned = 4096

// MissingLearning returns the missing limits for learning, if we created the bridge. It accepts a
// different number of addresses, because an administrator has set this number.
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
