package rtnl

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Attributes that limit which MAC addresses a bridge learns. A kernel that does not know an
// attribute ignores it in requests and omits it in answers.
const (
	brMultiBoolopt  = 46 // IFLA_BR_MULTI_BOOLOPT in linux/if_link.h, Linux 5.0: struct br_boolopt_multi
	brFDBMaxLearned = 49 // IFLA_BR_FDB_MAX_LEARNED, Linux 6.7; 0 means no limit

	noLinkLocalLearning = 1 << 0 // BR_BOOLOPT_NO_LL_LEARN in linux/if_bridge.h
)

// parseLearning parses the attributes that limit which MAC addresses a bridge learns.
func (l *Link) parseLearning(data netns.Attrs) {
	l.LearnsUnlimited = data.Get(brFDBMaxLearned) != nil && data.Integer(brFDBMaxLearned) == 0
	if options := data.Get(brMultiBoolopt); len(options) == 8 { // four bytes of values, then four bytes that show which options the kernel supports
		value, known := binary.NativeEndian.Uint32(options), binary.NativeEndian.Uint32(options[4:])
		l.LearnsLinkLocal = known&noLinkLocalLearning != 0 && value&noLinkLocalLearning == 0
	}
}

// LearnAtMost returns the attribute that limits how many MAC addresses a bridge learns.
func LearnAtMost(count uint32) *nl.RtAttr { return nl.NewRtAttr(brFDBMaxLearned, nl.Uint32Attr(count)) }

// NoLinkLocalLearning returns the attribute that stops a bridge from learning MAC addresses from
// frames to 01:80:c2:00:00:00 to :0F (link-local protocols such as LLDP).
func NoLinkLocalLearning() *nl.RtAttr {
	options := binary.NativeEndian.AppendUint32(nil, noLinkLocalLearning)
	return nl.NewRtAttr(brMultiBoolopt, binary.NativeEndian.AppendUint32(options, noLinkLocalLearning))
}
