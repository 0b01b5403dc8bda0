package doctor

import (
	"context"
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// proof sends the doctor's own packets along a path and finds out where they are lost.
type proof struct {
	*checks.Path
	seen probe.Sightings // where in the host and the containers the packets were seen
}

// prove sends a packet along a path and adds the result to the report.
func prove(ctx context.Context, path *checks.Path) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p := &proof{Path: path}
	e, err := probe.NewEcho(p.A.Namespace, p.From, p.To)
	if err != nil {
		p.addDifferences()
		p.Note("test packet", "%v", err)
		return nil
	}
	defer e.Close()
	defer p.forgetNeighbours()
	if p.Answered, _ = e.Ask(probe.Smallest); !p.Answered { // an error is ignored here, because investigate gets the same error
		if err := p.investigate(ctx); err != nil {
			return err
		}
	}
	if p.Answered {
		p.Downgrade()
		p.Good("test packet", "answered")
		p.checkFullSize(e)
	}
	return nil
}

// investigate sends more packets, watches them, and adds to the report what dropped them. Chains of
// type nat see only the first packet of a connection. So investigate opens a new socket, whose
// packets are a new connection.
func (p *proof) investigate(ctx context.Context) error {
	e, err := probe.NewEcho(p.A.Namespace, p.From, p.To)
	if err != nil {
		return err
	}
	defer e.Close()
	posts := p.posts()
	var growth map[probe.Counter][]int
	var failure error
	p.seen, err = probe.Watch(posts, e, func() { growth, p.Answered, failure = probe.SendBursts(ctx, e, posts) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || p.Answered {
		return err
	}
	p.addVerdicts()
	p.addCounters(growth)
	p.addDifferences()
	if p.Dropped() {
		p.Note("test packet", "no answer")
		return nil
	}
	p.CheckSilentDrops()
	p.addLost(failure)
	return nil
}

// posts returns the network namespaces of the host and of the containers, each with its links on
// the path.
func (p *proof) posts() (all probe.Posts) {
	for _, e := range p.Containers() {
		all.Add(p.Host.Namespace, e.Port, e.Bridge)
		all.Add(e.Namespace, e.Interface)
	}
	return all
}

// addVerdicts adds stations for the chains of the host that accepted the packets, and for the rules
// on the host and in the containers that dropped them.
func (p *proof) addVerdicts() {
	said := map[string]bool{}
	for _, v := range p.seen.Decided(p.Host.Namespace) {
		if where := chainOf(v); !v.Dropped && !said[where] {
			said[where] = true
			p.Good(where, "accepts the packet")
		}
	}
	for _, at := range p.seen {
		for _, v := range at.Verdicts {
			if where := "drop " + chainOf(v); v.Dropped && !said[where] {
				said[where] = true
				p.addDrop(v, at.Namespace)
			}
		}
	}
}

// addDifferences adds a station for each difference between a container and the result of its ADD.
func (p *proof) addDifferences() {
	said := map[string]bool{}
	for _, e := range p.Containers() {
		p.AddDifferences(e, said)
	}
}

// chainOf returns the name and the table of the chain that a verdict comes from.
func chainOf(v probe.Verdict) string {
	return fmt.Sprintf("chain %s of table %s %s", v.Chain, v.Family, v.Table)
}
