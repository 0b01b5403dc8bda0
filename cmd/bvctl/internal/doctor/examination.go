package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/node"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// examination is the state of one run of bvctl doctor.
type examination struct {
	*doctor.Doctor
	inv      *inventory.Inventory
	networks []inventory.Network
	all      []*inventory.Container
	ends     []*doctor.End                  // one for each container in all; End.Namespace is nil if the namespace cannot be opened
	unopened map[*doctor.End]*doctor.Report // reports on the ends whose namespace cannot be opened
	more     []*doctor.Report               // reports on problems that do not belong to a single container
}

const (
	doctorLock = "/run/bridgeveth-doctor" // a folder, because MakeFolder protects it from other users
	doctorWait = 2 * time.Minute          // the longest time to wait for another doctor, which may be checking the whole host
)

// acquireDoctor waits until no other "bvctl doctor" runs. Two of them at the same time could not
// distinguish each other's packets.
func acquireDoctor() (*flock.Lock, error) {
	if err := files.MakeFolder(doctorLock); err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return flock.Acquire(doctorLock, flock.Exclusive, doctorWait)
}

// newExamination lists the containers and opens their network namespaces. The caller must call
// close.
func newExamination(inv *inventory.Inventory) (*examination, error) {
	ns, err := setup.CurrentHost()
	if err != nil {
		return nil, err
	}
	ns.RememberNetworks()
	x := &examination{Doctor: &doctor.Doctor{Host: ns}, inv: inv, networks: inv.Networks(), unopened: map[*doctor.End]*doctor.Report{}}
	if x.all, err = inv.Containers(ns, x.networks); err != nil {
		x.close()
		return nil, err
	}
	x.PodRanges = x.podRanges()
	for _, c := range x.all {
		e := &doctor.End{Name: c.DisplayName(), Interface: c.Interface, Port: c.Port.Name, Bridge: c.Bridge, Addresses: c.Addresses, Routes: c.Routes}
		x.ends = append(x.ends, e)
		if e.Namespace, err = setup.OpenNamespace(c.Namespace); err != nil {
			x.unopened[e] = problem(e.Name, "namespace of "+e.Name, "have the runtime delete the container",
				fmt.Sprintf("interface %s of network %s: %v", c.Interface, c.Network, err))
			continue
		}
		e.Verify = c.Verify
		x.Ends = append(x.Ends, e)
	}
	if damaged, err := inv.Damaged(); err == nil {
		for _, d := range damaged {
			x.more = append(x.more, problem("libcni's records", "record", "have the runtime delete the containers that bvctl inspect does not show, then delete the file", d.Error()))
		}
	}
	if incompatible, err := x.IncompatibleChains(); err == nil {
		x.more = append(x.more, incompatible...)
	}
	if err := x.DeleteLeftovers(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// podRanges returns the ranges in the key masqExclude of all configurations and of libcni's
// records. The doctor assumes that the pods of all nodes have addresses in these ranges.
func (x *examination) podRanges() (ranges []netip.Prefix) {
	var texts []string
	for _, n := range x.networks {
		texts = append(texts, n.MasqExclude...)
	}
	for _, c := range x.all {
		texts = append(texts, c.MasqExclude...)
	}
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil && !slices.Contains(ranges, p) {
			ranges = append(ranges, p)
		}
	}
	return ranges
}

// problem returns a report on a problem that was found without a test packet.
func problem(of, station, advice, what string) *doctor.Report {
	return &doctor.Report{From: of, Stations: []doctor.Station{{Name: station, State: doctor.Bad, What: what, Remedy: advice, Advice: true}}}
}

func (x *examination) close() {
	for _, e := range x.Ends {
		e.Namespace.Close()
	}
	x.Host.Close()
}

// walk follows packets along the paths of the containers that args name, or of all containers if
// args is empty.
func (x *examination) walk(ctx context.Context, args []string) (reports []*doctor.Report, err error) {
	x.AskAgent = func(host string) (string, error) {
		text, _, err := node.AskAgent(ctx, net.JoinHostPort(host, node.AgentPort))
		return text, err
	}
	from, reports := x.ends, x.more
	if len(args) > 0 {
		a, err := x.find(args[0])
		if err != nil {
			return nil, err
		}
		if a == nil {
			return nil, fmt.Errorf("%q is no container of bridgeveth; list the containers with bvctl inspect", args[0])
		}
		from, reports = []*doctor.End{a}, nil
	}
	concerned := from
	var to *doctor.End
	if len(args) == 2 {
		if to, err = x.target(args[1]); err != nil {
			return nil, err
		}
		concerned = append(concerned, to)
	}
	count := 0
	for _, a := range from {
		if count >= maxFailed {
			reports = append(reports, &doctor.Report{From: "other containers", Stations: []doctor.Station{
				{Name: "not checked", State: doctor.Note, What: "fix the problems above first, then run bvctl doctor again; each path that fails takes several seconds"},
			}})
			break
		}
		walked, err := x.walkFrom(ctx, a, to)
		if err != nil {
			return nil, err
		}
		reports, count = append(reports, walked...), count+failed(walked)
	}
	different := x.Differences(concerned, reports)
	// Differences also reports a container that was removed after newExamination had listed it.
	// Compare again without such containers.
	if len(different) > 0 {
		different = x.Differences(x.present(concerned), reports)
	}
	reports = append(reports, different...)
	if len(args) > 0 {
		return reports, nil
	}
	passing, err := x.PassingPackets()
	return append(reports, passing...), err
}

// walkFrom follows packets from a container (the parameter a) to a target (the parameter to). If
// the target is nil, walkFrom follows packets to the container's gateways and to the next container
// on its bridge. If the network namespace of the container or of the target cannot be opened,
// walkFrom returns only a report on this problem.
func (x *examination) walkFrom(ctx context.Context, a, to *doctor.End) ([]*doctor.Report, error) {
	for _, e := range []*doctor.End{a, to} {
		if unopened := x.unopened[e]; unopened != nil {
			return []*doctor.Report{unopened}, nil
		}
	}
	if to == nil {
		return x.walkAll(ctx, a, x.nearby(a))
	}
	return x.walkAll(ctx, a, []*doctor.End{to})
}

// maxFailed is the number of failed paths after which the doctor stops. One problem of the host can
// make every path fail, and each failed path takes several seconds.
const maxFailed = 5

// failed counts the paths that have an obstacle.
func failed(reports []*doctor.Report) (count int) {
	for _, r := range reports {
		if r.To != "" && !r.Healthy() {
			count++
		}
	}
	return count
}

// walkAll follows packets from container a to each target, in each address family that both have.
// If they have no common family, it checks only their links.
func (x *examination) walkAll(ctx context.Context, a *doctor.End, targets []*doctor.End) (reports []*doctor.Report, err error) {
	add := func(b *doctor.End, r *doctor.Report) {
		if !r.Healthy() && len(x.present([]*doctor.End{a, b})) < 2 {
			r = &doctor.Report{From: r.From, To: r.To, Stations: []doctor.Station{{Name: "container", State: doctor.Note, What: "a container of this path was removed in the meantime"}}}
		}
		reports = append(reports, r)
	}
	for _, b := range targets {
		common := false
		for _, is4 := range []bool{true, false} {
			if !has(a, is4) || !has(b, is4) {
				continue
			}
			common = true
			r, err := x.Walk(ctx, a, b, is4)
			if err != nil {
				return nil, err
			}
			add(b, r)
		}
		if common {
			continue
		}
		if b.Namespace == nil {
			return nil, fmt.Errorf("%s has no address of the address family of %s", a.Name, b.Name)
		}
		r, err := x.Link(a, b)
		if err != nil {
			return nil, err
		}
		add(b, r)
	}
	if len(targets) == 0 {
		r, err := x.Link(a, nil)
		if err != nil {
			return nil, err
		}
		add(nil, r)
	}
	return reports, nil
}

// present returns a copy of the list that omits the containers that were removed.
func (x *examination) present(ends []*doctor.End) []*doctor.End {
	list := sync.OnceValues(func() ([]*inventory.Container, error) { return x.inv.Containers(x.Host, x.networks) })
	return slices.DeleteFunc(slices.Clone(ends), func(e *doctor.End) bool {
		at := slices.Index(x.ends, e)
		if at < 0 {
			return false
		}
		is := x.all[at].Attachment
		if plugged, err := x.Host.HasPort(is); plugged || err != nil {
			return false // no need for the list, which takes longer: it reads all records and leases
		}
		now, err := list()
		return err == nil && !slices.ContainsFunc(now, func(c *inventory.Container) bool { return c.Attachment == is })
	})
}
