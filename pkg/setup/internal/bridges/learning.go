package bridges

import (
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A container may send from any number of MAC addresses. The bridge learns each and forgets none for
// five minutes, so one container could use up the memory of the host. A bridge that we make therefore
// learns a limited number. The bridge floods frames to an address that it has not learned, so packets
// still arrive when the limit is reached.
//
// A frame to 01:80:c2:00:00:0X, such as one of LLDP, is learned from but not forwarded, and does not
// pass the prerouting hook (br_handle_frame in net/bridge/br_input.c). The guard of a port never sees
// that frame. A bridge that we make learns nothing from such frames.

// maxLearned is how many MAC addresses a bridge of ours learns: some four for each port that it may
// have, for containers in which virtual machines or MACVLANs have addresses of their own.
const maxLearned = 4096

// MissingLearning compares what a bridge learns with the limits for bridges that we make. An
// administrator may have set another limit, which stays.
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
