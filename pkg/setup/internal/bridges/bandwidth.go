package bridges

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

const (
	// maxBurst is the greatest burst. It is given as a time: the burst is the amount of data that
	// the rate allows in this time. With 50 ms, the traffic of one second is at most 5 % above the
	// rate. containerd and CRI-O ask for a burst of 512 MiB. With such a burst, most containers
	// would never reach their limit.
	maxBurst = 50 * time.Millisecond
	// queueTime is the length of the queue of packets that wait for tokens, given as the time to
	// send them at the rate of the limit. A segment of 64 KiB may be larger than the bucket. All
	// parts of such a segment must fit into the queue. In a shorter queue, they would not fit if
	// the limit is 10 Mbit/s or less, and TCP would stay below the limit.
	queueTime = 100 * time.Millisecond
	// minQueue is the minimum length of the queue of waiting packets, in frames. It takes effect at
	// low rates, because queueTime then gives a shorter queue.
	minQueue = 8
	// frameHeader is the length of an Ethernet header with a VLAN tag, in bytes.
	frameHeader = 14 + 4
)

// bucket returns the token bucket for a bandwidth limit, on a link with this MTU.
func bucket(l plan.Limit, mtu int) rtnl.Bucket {
	rate, frame := float64(l.Rate/8), float64(mtu+frameHeader)
	fill := max(min(float64(l.Burst)/float64(l.Rate), maxBurst.Seconds()), frame/rate) // in seconds
	queue := max(queueTime.Seconds()*rate, minQueue*frame)
	atMost := func(x float64) uint32 { return uint32(min(math.Ceil(x), math.MaxUint32)) }
	return rtnl.Bucket{Rate: l.Rate / 8, Fill: atMost(fill * float64(time.Second) / rtnl.Tick), Limit: atMost(fill*rate + queue)}
}

// LimitPort sets the bandwidth limits of a port. The limit for packets to the container is a qdisc
// of the port. A filter redirects packets from the container to the port's IFB. The limit for these
// packets is a qdisc of the IFB. If the port is an existing link (Port.ExistingLink) with a root
// qdisc of another program, LimitPort returns EEXIST and does not change that qdisc.
func LimitPort(n *netns.Namespace, p *plan.Port) error {
	if p.Bandwidth == (plan.Bandwidth{}) {
		return nil
	}
	port, err := rtnl.ByName(n, p.LinkName())
	if err != nil {
		return err
	}
	var b netns.Batch
	if limit := p.Bandwidth.Ingress; limit.Rate != 0 {
		rtnl.AddBucket(&b, port, bucket(limit, port.MTU), p.ExistingLink == "")
	}
	if limit := p.Bandwidth.Egress; limit.Rate != 0 {
		ifb, err := makeIFB(n, p, port.MTU)
		if err != nil {
			return err
		}
		rtnl.AddBucket(&b, ifb, bucket(limit, port.MTU), true)
		rtnl.AddRedirect(&b, port, ifb)
	}
	return n.Send(b)
}

// makeIFB creates the IFB of a port, the link for the bandwidth limit (see plan.IFBOf). If the port
// already has an IFB, makeIFB deletes it first.
func makeIFB(n *netns.Namespace, p *plan.Port, mtu int) (rtnl.Link, error) {
	name := plan.IFBOf(p.Port())
	var b netns.Batch
	rtnl.Delete(&b, name)
	create := rtnl.NewLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	create.AddData(rtnl.LinkInfo("ifb"))
	for _, attr := range rtnl.Ethernet(name, p.PortMAC(), mtu)[1:] { // the request already has the name
		create.AddData(attr)
	}
	b.Add("create "+name, create)
	settings := b.Add("configure "+name, rtnl.NewLinkRequest(name, 0))
	settings.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	rtnl.DisableGeneratedIPv6(&b, name)
	rtnl.SetUp(&b, name)
	if err := n.Send(b); err != nil {
		return rtnl.Link{}, err
	}
	return rtnl.ByName(n, name)
}

// bandwidth returns the rates of the bandwidth limits of a port, without the bursts. It reads them
// from the qdiscs of the port and its IFB.
func bandwidth(n *netns.Namespace, port, ifb rtnl.Link) (limits plan.Bandwidth, err error) {
	to, err := rtnl.ReadBucket(n, port)
	from, fromErr := rtnl.ReadBucket(n, ifb)
	limits.Ingress.Rate, limits.Egress.Rate = to.Rate*8, from.Rate*8
	return limits, errors.Join(err, fromErr)
}

// VerifyBandwidth compares the bandwidth limits of a port with the plan. If the plan has no limits,
// it checks nothing.
func VerifyBandwidth(n *netns.Namespace, p *plan.Port) error {
	if p.Bandwidth == (plan.Bandwidth{}) {
		return nil
	}
	port, err := rtnl.ByName(n, p.LinkName())
	if rtnl.Absent(err) {
		return nil // another check reports the missing port
	}
	if err != nil {
		return err
	}
	var wrong []error
	compare := func(way string, l rtnl.Link, limit plan.Limit) {
		present, err := rtnl.ReadBucket(n, l)
		wrong = append(wrong, err, plan.Differ("limit of port "+port.Name+" "+way+" the container", present, bucket(limit, port.MTU)))
	}
	if limit := p.Bandwidth.Ingress; limit.Rate != 0 {
		compare("to", port, limit)
	}
	if limit := p.Bandwidth.Egress; limit.Rate != 0 {
		ifb, err := rtnl.ByName(n, plan.IFBOf(p.Port()))
		if rtnl.Absent(err) {
			return errors.Join(append(wrong, fmt.Errorf("link %s, which limits port %s: missing", plan.IFBOf(p.Port()), port.Name))...)
		}
		to, _, redirectErr := rtnl.RedirectTarget(n, port)
		wrong = append(wrong, err, redirectErr, plan.Differ(ifb.Name+" up", ifb.Up, true),
			plan.Differ("redirection from port "+port.Name+" to "+ifb.Name, to == ifb.Index, true))
		compare("from", ifb, limit)
	}
	return errors.Join(wrong...)
}
