package chaos

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// check compares the host with the living containers while no worker runs. Two comparisons come
// before the repair, because a repair could hide a problem: no address and no host port belongs to
// two containers, and each address of a container is leased to this container. After one repair,
// CHECK succeeds for each container and the container reaches its gateways.
func (r *run) check() {
	if err := r.firewalls.again(r.t); err != nil {
		r.problem(err.Error())
	}
	r.restoreLeases()
	r.checkAddresses()
	r.checkPorts()
	out, err := bvctl("repair")
	r.log(entry{at: time.Now(), action: "bvctl repair", result: out})
	if err != nil {
		r.problem(fmt.Sprintf("bvctl repair: %v: %s", err, out))
	}
	for _, c := range r.living() {
		r.count("checked", "containers")
		_ = r.checker.checkNow(c, nil) // checkNow has recorded the error
		for _, gateway := range c.gateways {
			if !setuptest.Ping(r.t, c.ns, gateway.String()) {
				r.problem(fmt.Sprintf("%s does not reach its gateway %s after a repair", c.name, gateway), c.name)
			}
		}
	}
	if r.hostile != nil && r.checks%attackEvery == 0 {
		r.attack()
	}
	r.checks++
}

// restoreLeases attaches and detaches one container in each network, because the first ADD after
// the deletion of the leases' file finds the leases of the living containers again.
func (r *run) restoreLeases() {
	for _, n := range r.networks {
		r.checker.addTo(n)
		r.checker.del()
	}
}

// checkAddresses checks the addresses of all living containers.
func (r *run) checkAddresses() {
	leased := map[netip.Addr]ipam.Lease{}
	for _, n := range r.networks {
		leases, err := harness.Leases(n.name)
		if err != nil {
			r.problem(fmt.Sprintf("leases of network %s: %v", n.name, err))
		}
		for _, l := range leases {
			leased[l.Address.Addr()] = l
		}
	}
	holders := map[netip.Addr]string{}
	for _, c := range r.living() {
		found, err := setup.Addresses(c.ns, ifname)
		slices.SortFunc(found, netip.Prefix.Compare)
		if err != nil || !slices.Equal(found, c.addresses) {
			r.problem(fmt.Sprintf("%s has the addresses %v, ADD returned %v (%v)", c.name, found, c.addresses, err), c.name)
		}
		for _, p := range found {
			a := p.Addr()
			if other, ok := holders[a]; ok {
				r.problem(fmt.Sprintf("%s and %s have the address %s", other, c.name, a), other, c.name, a.String())
			}
			holders[a] = c.name
			if l := leased[a]; l.Container != c.name || l.Network != c.network.name {
				r.problem(fmt.Sprintf("%s has the address %s, which is leased to %q", c.name, a, l.Container), c.name, l.Container, a.String())
			}
		}
	}
}

// checkPorts checks that no two living containers have the same host port. There is one exception.
// ADD restores host ports from libcni's records after a flush, and libcni writes the record of a
// container at the end of its ADD. If "nft flush ruleset" hits an ADD with a host port, another
// container can therefore get this host port. checkPorts then detaches the first container, and counts
// it. It also detaches a container that a killed DEL has perhaps left attached.
func (r *run) checkPorts() {
	publishers := map[int][]*container{}
	for _, w := range r.workers {
		for _, c := range w.containers {
			if c.port != 0 && !c.added.IsZero() {
				publishers[c.port] = append(publishers[c.port], c)
			}
		}
	}
	for port, all := range publishers {
		last := slices.MaxFunc(all, func(a, b *container) int { return a.added.Compare(b.added) })
		for _, c := range all {
			switch {
			case c == last:
				continue
			case c.living && !r.flushedDuring(c):
				r.problem(fmt.Sprintf("%s and %s have the host port %d", c.name, last.name, port), c.name, last.name)
			case c.living:
				r.count("flushed", "ADDs")
			}
			c.worker.detach(c)
		}
	}
}

// flushedDuring reports whether a worker has flushed the ruleset during the ADD of a container.
func (r *run) flushedDuring(c *container) bool {
	return slices.ContainsFunc(r.entries, func(e entry) bool {
		return e.action == rulesetFlushed && e.at.Before(c.added) && e.ended.After(c.adding)
	})
}

// living returns the living containers of all workers.
func (r *run) living() (all []*container) {
	for _, w := range r.workers {
		for _, c := range w.containers {
			if c.living {
				all = append(all, c)
			}
		}
	}
	return all
}
