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

	// longestBurst is how much of a rate may come at once, as a time. With 50 ms nobody gets
	// more than 5 % above the rate in a second, while containerd and CRI-O name a burst of
	// 512 MiB, which would let most of what a container ever sends by without a limit.
	longestBurst = 50 * time.Millisecond
	// longestQueue is how much may wait besides, as a time. With less, TCP does not get
	// the rate at 10 Mbit/s and below: its packets of 64 KiB, taken apart for a bucket
	// that is smaller, have to find room.
	longestQueue = 100 * time.Millisecond
	// leastQueue is the same in frames, for rates at which that would be next to none.
	leastQueue = 8
	// frameHeader is what a frame has besides its MTU: Ethernet's header and a VLAN tag.
	frameHeader = 14 + 4
)

// bucket is the limit for a link with an MTU.
func bucket(l plan.Limit, mtu int) rtnl.Bucket {
	rate, frame := float64(l.Rate/8), float64(mtu+frameHeader)
	fill := max(min(float64(l.Burst)/float64(l.Rate), longestBurst.Seconds()), frame/rate) // in seconds
	queue := max(longestQueue.Seconds()*rate, leastQueue*frame)
	atMost := func(x float64) uint32 { return uint32(min(math.Ceil(x), math.MaxUint32)) }
	return rtnl.Bucket{Rate: l.Rate / 8, Fill: atMost(fill * float64(time.Second) / rtnl.Tick), Limit: atMost(fill*rate + queue)}
}

// LimitPort limits what a port carries: what goes to the container where it leaves by the
// port, what comes from it by way of an IFB. On a link that was given, somebody else's
// qdisc is left alone, and EEXIST.
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

// makeIFB makes the IFB of a port anew.
func makeIFB(n *netns.Namespace, p *plan.Port, mtu int) (rtnl.Link, error) {
	name := plan.IFBOf(p.Port())
	var b netns.Batch
	rtnl.Delete(&b, name)
	create := rtnl.NewLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	create.AddData(rtnl.LinkInfo("ifb"))
	for _, attr := range rtnl.Ethernet(name, p.PortMAC(), mtu)[1:] { // the name is there
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

// bandwidth reads the rates of a port's limits. Links without any are not asked about.
func bandwidth(n *netns.Namespace, port, ifb rtnl.Link) (limits plan.Bandwidth, err error) {
	to, err := rtnl.ReadBucket(n, port)
	from, fromErr := rtnl.ReadBucket(n, ifb)
	limits.Ingress.Rate, limits.Egress.Rate = to.Rate*8, from.Rate*8
	return limits, errors.Join(err, fromErr)
}

// VerifyBandwidth compares the limits of a port with what limitPort made. Of a port that is
// to have none, nothing is looked at.
func VerifyBandwidth(n *netns.Namespace, p *plan.Port) error {
	if p.Bandwidth == (plan.Bandwidth{}) {
		return nil
	}
	port, err := rtnl.ByName(n, p.LinkName())
	if rtnl.Absent(err) {
		return nil // reported already
	}
	if err != nil {
		return err
	}
	var wrong []error
	compare := func(way string, l rtnl.Link, limit plan.Limit) {
		is, err := rtnl.ReadBucket(n, l)
		wrong = append(wrong, err, plan.Differ("limit of port "+port.Name+" "+way+" the container", is, bucket(limit, port.MTU)))
	}
	if limit := p.Bandwidth.Ingress; limit.Rate != 0 {
		compare("to", port, limit)
	}
	if limit := p.Bandwidth.Egress; limit.Rate != 0 {
		ifb, err := rtnl.ByName(n, plan.IFBOf(p.Port()))
		if rtnl.Absent(err) {
			return errors.Join(append(wrong, fmt.Errorf("%s, by which port %s is limited: missing", plan.IFBOf(p.Port()), port.Name))...)
		}
		to, _, redirectErr := rtnl.RedirectTarget(n, port)
		wrong = append(wrong, err, redirectErr, plan.Differ(ifb.Name+" up", ifb.Up, true),
			plan.Differ("redirection from port "+port.Name+" to "+ifb.Name, to == ifb.Index, true))
		compare("from", ifb, limit)
	}
	return errors.Join(wrong...)
}
