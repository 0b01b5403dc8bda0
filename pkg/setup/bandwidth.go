package setup

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// MinRate is the least rate of a Limit, in bits per second: that of Kubernetes.
	MinRate = 1000

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

	// ifbPrefix, with the digits of a port's name, is the name of what its egress goes by.
	ifbPrefix = "ifb"
)

// Limit is how much may pass one way, by a token bucket (tc-tbf(8)).
type Limit struct {
	Rate  uint64 // bits per second, of whole Ethernet frames; 0 is no limit, and less than MinRate too little
	Burst uint64 // bits that may pass at once after a pause; at most what the rate lets pass in 50 ms count, and at least a frame
}

// Bandwidth limits what a port carries. The directions are as the container sees them: CNI's
// capability of that name.
type Bandwidth struct{ Ingress, Egress Limit }

// bucket is the limit for a link with an MTU.
func (l Limit) bucket(mtu int) bucket {
	rate, frame := float64(l.Rate/8), float64(mtu+frameHeader)
	fill := max(min(float64(l.Burst)/float64(l.Rate), longestBurst.Seconds()), frame/rate) // in seconds
	queue := max(longestQueue.Seconds()*rate, leastQueue*frame)
	atMost := func(x float64) uint32 { return uint32(min(math.Ceil(x), math.MaxUint32)) }
	return bucket{rate: l.Rate / 8, fill: atMost(fill * float64(time.Second) / tick), limit: atMost(fill*rate + queue)}
}

// ifbOf is the name of the link that what a container sends goes by, by that of its port.
// An IFB is a link whose transmission puts packets back where they came from, so that a
// qdisc can hold them: what arrives meets no other.
func ifbOf(port string) string { return ifbPrefix + strings.TrimPrefix(port, portPrefix) }

// limitPort limits what a port carries: what goes to the container where it leaves by the
// port, what comes from it by way of an IFB. On a link that was given, somebody else's
// qdisc is left alone, and EEXIST.
func (n *Namespace) limitPort(p *Port) error {
	if p.Bandwidth == (Bandwidth{}) {
		return nil
	}
	port, err := n.link(p.name())
	if err != nil {
		return err
	}
	var b batch
	if limit := p.Bandwidth.Ingress; limit.Rate != 0 {
		b.addBucket(port, limit.bucket(port.mtu), p.Given == "")
	}
	if limit := p.Bandwidth.Egress; limit.Rate != 0 {
		ifb, err := n.makeIFB(p, port.mtu)
		if err != nil {
			return err
		}
		b.addBucket(ifb, limit.bucket(port.mtu), true)
		b.addRedirect(port, ifb)
	}
	return n.send(b)
}

// makeIFB makes the IFB of a port anew.
func (n *Namespace) makeIFB(p *Port, mtu int) (link, error) {
	name := ifbOf(p.Port())
	var b batch
	b.delete(name)
	create := newLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	create.AddData(linkInfo("ifb"))
	for _, attr := range ethernet(name, p.portMAC(), mtu)[1:] { // the name is there
		create.AddData(attr)
	}
	b.add("create "+name, create)
	settings := b.add("configure "+name, newLinkRequest(name, 0))
	settings.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.alias())))
	b.silenceIPv6(name)
	b.setUp(name)
	if err := n.send(b); err != nil {
		return link{}, err
	}
	return n.link(name)
}

// staleIFBs lists the IFBs of ports that are gone.
func staleIFBs(links []link, gone func(portOwner) bool) (names []string) {
	for _, l := range links {
		digits, found := strings.CutPrefix(l.name, ifbPrefix)
		if a, ours := ParseAttachment(l.alias); ours && found && gone(portOwner{portPrefix + digits, a}) {
			names = append(names, l.name)
		}
	}
	return names
}

// bandwidth reads the rates of a port's limits. Links without any are not asked about.
func (n *Namespace) bandwidth(port, ifb link) (limits Bandwidth, err error) {
	to, err := n.bucket(port)
	from, fromErr := n.bucket(ifb)
	limits.Ingress.Rate, limits.Egress.Rate = to.rate*8, from.rate*8
	return limits, errors.Join(err, fromErr)
}

// verifyBandwidth compares the limits of a port with what limitPort made. Of a port that is
// to have none, nothing is looked at.
func (n *Namespace) verifyBandwidth(p *Port) error {
	if p.Bandwidth == (Bandwidth{}) {
		return nil
	}
	port, err := n.link(p.name())
	if absent(err) {
		return nil // reported already
	}
	if err != nil {
		return err
	}
	var wrong []error
	compare := func(way string, l link, limit Limit) {
		is, err := n.bucket(l)
		wrong = append(wrong, err, differ("limit of port "+port.name+" "+way+" the container", is, limit.bucket(port.mtu)))
	}
	if limit := p.Bandwidth.Ingress; limit.Rate != 0 {
		compare("to", port, limit)
	}
	if limit := p.Bandwidth.Egress; limit.Rate != 0 {
		ifb, err := n.link(ifbOf(p.Port()))
		if absent(err) {
			return errors.Join(append(wrong, fmt.Errorf("%s, by which port %s is limited: missing", ifbOf(p.Port()), port.name))...)
		}
		to, _, redirectErr := n.redirected(port)
		wrong = append(wrong, err, redirectErr, differ(ifb.name+" up", ifb.up, true),
			differ("redirection from port "+port.name+" to "+ifb.name, to == ifb.index, true))
		compare("from", ifb, limit)
	}
	return errors.Join(wrong...)
}
