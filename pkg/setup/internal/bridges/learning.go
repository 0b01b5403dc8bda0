package bridges

import (
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A container may send from any number of MAC addresses. The bridge learns each address for five
// minutes, so one container could use up the memory of the host. A bridge that we create therefore
// learns a limited number of addresses. It floods frames for an address that it has not learned, so
// packets still arrive when the limit is reached.
//
// Frames to 01:80:c2:00:00:0X, such as those of LLDP, do not pass the prerouting hook, but the bridge
// learns from them (br_handle_frame in net/bridge/br_input.c). The guard of a port does not see such
// frames. A bridge that we create learns nothing from them.

// maxLearned is how many MAC addresses a bridge that we create learns. There are four for each port:
// virtual machines and MACVLANs in a container have addresses of their own.
const maxLearned = 4096

// MissingLearning compares what a bridge learns with the limits for bridges that we create. A different
// limit stays, because an administrator has set it.
func MissingLearning(n *netns.Namespace, br rtnl.Link) (missing []plan.Difference) {
	if br.Alias != plan.Owner {
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
