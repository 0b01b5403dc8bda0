// Package agent keeps a node connected to the other nodes of its cluster. It repeatedly compares
// the state of the node with the state that the node needs, and corrects every difference.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/conflist"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/install"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/counters"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Agent is the node agent of one Kubernetes node.
type Agent struct {
	Self     string // name of the own Node object
	Settings cluster.Settings
	Plugin   string        // path of the plugin file to install; "" means that the agent installs none
	BinDir   string        // the folder in which the runtime searches for plugins
	Base     string        // path of the base configuration; "" means the built-in base
	Conflist conflist.File // the network configuration that the runtime reads
	Kernel   *kernel.Host
	Host     *setup.Host // pkg/setup's handle for the same network namespace
	Nodes    Nodes
	Log      *slog.Logger

	installed bool
	uplinks   []cluster.Uplink // at the last look
	base      *conflist.Base   // the last base that could be read without an error
	status
}

// Nodes gives access to the Node objects of the cluster at the API server.
type Nodes interface {
	List() (all []cluster.Node, ok bool) // ok is false until the API server has sent the first list
	Trouble() string                     // why the API server does not answer; "" if it does
	Report(reason, message string)       // writes an Event about the own Node object
	ClearNetworkUnavailable(context.Context) error
	Reconnect() // opens new connections to the API server
}

const (
	quiet = 100 * time.Millisecond // after a change, a comparison begins when no other change has come for this time
	most  = time.Second            // a comparison begins at the latest this long after the first change
	idle  = 30 * time.Second       // time between two comparisons if nothing changes

	logged = 100 // at most this many changes of one comparison get separate lines in the log
)

// Run calls Look at the start, after each wake-up, and after 30 seconds without a wake-up. It
// returns when ctx ends. It leaves routes, rules and conflist in place, so running pods keep their
// network.
func (a *Agent) Run(ctx context.Context, wake <-chan struct{}) error {
	if err := a.withdrawStale(); err != nil {
		return err
	}
	// If the folder of the lease store is a hostPath volume, the kubelet has created it with mode
	// 0755. With this mode, any user could open and lock the lease store.
	if err := os.Chmod(ipam.DefaultDir, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("leases: " + err.Error())
	}
	for {
		a.Look()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(idle):
		case <-wake:
			settle(ctx, wake)
		}
	}
}

// settle waits until no wake-up has come for 100 ms, but at most for one second. Several changes in
// a short time thus cause only one comparison.
func settle(ctx context.Context, wake <-chan struct{}) {
	end := time.After(most)
	for {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-time.After(quiet):
			return
		case <-wake:
		}
	}
}

// withdrawStale removes a conflist that was written before the last boot. The routes do not exist
// yet, but a runtime that finds a conflist reports the node as ready for pods. If the administrator
// has set --volatile-conflist to "", the conflist must outlive a reboot, and withdrawStale keeps
// it.
func (a *Agent) withdrawStale() error {
	complete, err := a.Kernel.Complete()
	if err != nil || complete || a.Conflist.Volatile == "" {
		return err
	}
	removed, err := a.Conflist.Remove()
	if removed {
		a.Log.Info("removed the network configuration until the routes stand", "file", a.Conflist.Path)
	}
	return err
}

// Look compares the state of the node once with the state that the node needs, and corrects every
// difference. It logs the changes and the new problems.
func (a *Agent) Look() {
	start := time.Now()
	r := a.look()
	r.took, r.at = time.Since(start), time.Now()
	for i, c := range r.changes {
		if i == logged {
			a.Log.Info(fmt.Sprintf("and %d more changes", len(r.changes)-i))
			break
		}
		a.Log.Info(c)
	}
	unseen := a.publish(r)
	for _, text := range unseen {
		a.Log.Warn(text)
	}
	for _, e := range r.events {
		if slices.Contains(unseen, e.text) {
			a.Nodes.Report(e.reason, e.text)
		}
	}
}

// look does the comparison and the corrections for Look, without logging them.
func (a *Agent) look() (r result) {
	if err := a.install(&r); err != nil {
		r.fail("plugins: " + err.Error())
	}
	if err := counters.Create(counters.Path); err != nil {
		r.warn("counters of ADDs: " + err.Error())
	}
	base, err := conflist.ReadBase(a.Base)
	if err != nil {
		r.fail(err.Error())
	} else {
		a.base = base
	}
	nodes, ok := a.Nodes.List()
	if !ok || a.base == nil {
		if !ok {
			r.fail("waiting for the API server: " + a.Nodes.Trouble())
		}
		return r
	}
	if trouble := a.Nodes.Trouble(); trouble != "" {
		r.warn("the API server does not answer; routes and configuration stay as they are: " + trouble)
	}
	state, ok := a.wanted(nodes, &r)
	if !ok {
		return r
	}
	changes, err := a.Kernel.Apply(state)
	r.changes = append(r.changes, changes...)
	if err != nil {
		for _, e := range unwrap(err) {
			r.fail(e.Error())
		}
	}
	a.acceptTransit(state.Pods, &r)
	values := conflist.Values{Ranges: state.Ranges, NoMasquerade: state.NoMasquerade, MTU: state.MTU}
	a.serve(values, &r)
	if len(r.reasons) == 0 { // a conflist that exists stays even if the node is not ready now: it was correct once, and running pods need it for DEL
		if err := a.write(values, &r); err != nil {
			r.fail("network configuration: " + err.Error())
		}
	}
	a.checkForeign(state.Ranges, &r)
	a.clearCondition(&r)
	return r
}

// clearCondition sets the node condition NetworkUnavailable to False if a cloud controller has set
// it to True. With --routing none, it does not change the condition, because the agent does not
// manage the routes.
func (a *Agent) clearCondition(r *result) {
	if len(r.reasons) > 0 || !r.unavailable || a.Settings.Routing == cluster.RoutingNone {
		return
	}
	if err := a.Nodes.ClearNetworkUnavailable(context.Background()); err != nil {
		r.warn("node condition NetworkUnavailable: " + err.Error())
		return
	}
	r.changes = append(r.changes, "set node condition NetworkUnavailable to False")
}

// serve corrects the objects on the host that all running pods share, such as rules and gateways.
// It adds to r each problem that keeps new pods from being attached.
func (a *Agent) serve(values conflist.Values, r *result) {
	ports, err := a.ports()
	if err != nil {
		r.warn("running pods: " + err.Error())
	}
	leases, err := a.leases(ports)
	if err != nil {
		r.warn("leases: " + err.Error())
	}
	r.leases = leases
	network, err := a.network(values, leases.subnets)
	if err != nil {
		r.fail("network configuration: " + err.Error())
		return
	}
	if len(ports) > 0 { // without running pods, the bridge may not exist yet
		if err := a.repair(network, r); err != nil {
			r.warn("running pods: " + err.Error())
		}
	}
	checkFree(values.Ranges, leases, r)
	if network.Forward == setup.ForwardNone {
		return
	}
	if err := a.Host.CheckDenied(network); err != nil {
		text := fmt.Sprintf("network %s: %v", a.base.Name(), err)
		r.warn(text)
		r.tell(forwardDenied, text)
	}
}

// wanted returns the state that the node needs. If this state cannot be determined yet, ok is
// false, and the reason is in r.
func (a *Agent) wanted(nodes []cluster.Node, r *result) (state cluster.State, ok bool) {
	var own cluster.Node
	if i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.Name == a.Self }); i >= 0 {
		own = nodes[i]
	}
	uplinks, locals, err := a.Kernel.Links(own.Addresses, a.base.Bridge(), cluster.TunnelLink)
	if err != nil {
		r.fail(err.Error())
		return state, false
	}
	for _, before := range a.uplinks {
		if !slices.ContainsFunc(uplinks, func(u cluster.Uplink) bool { return u.Address == before.Address }) {
			a.Nodes.Reconnect() // connections from this address would get no answers
			break
		}
	}
	a.uplinks = uplinks
	state, problems, ok := cluster.Wanted(a.Self, nodes, uplinks, locals, a.Settings)
	for _, p := range problems {
		if text := "node " + p.Node + ": " + p.Text; p.Own {
			r.fail(text)
		} else {
			r.warn(text)
		}
	}
	r.nodes, r.state, r.unavailable = nodes, state, own.NetworkUnavailable
	return state, ok
}

// install copies the plugin files into BinDir. After it has succeeded once, it does nothing.
func (a *Agent) install(r *result) error {
	if a.installed || a.Plugin == "" {
		return nil
	}
	names, err := install.Plugins(a.Plugin, a.BinDir)
	for _, name := range names {
		r.changes = append(r.changes, fmt.Sprintf("install %s/%s", a.BinDir, name))
	}
	a.installed = err == nil
	return err
}

// write writes the conflist. It is the last step of a comparison, because the runtime reports the
// node as ready as soon as the conflist exists.
func (a *Agent) write(values conflist.Values, r *result) error {
	text, err := a.base.Complete(values)
	if err != nil {
		return err
	}
	changed, err := a.Conflist.Write(text)
	if changed {
		r.changes = append(r.changes, "write "+a.Conflist.Path)
	}
	return err
}

// checkForeign looks for network configurations of other programs. If the runtime prefers such a
// configuration to the agent's, the node is not ready, and checkForeign adds this reason to r. If
// such a configuration has pod ranges that other nodes have no route to, checkForeign adds a
// warning.
func (a *Agent) checkForeign(ranges []netip.Prefix, r *result) {
	others, err := a.Conflist.Foreign(a.base.Bridge())
	if err != nil {
		r.warn("network configuration: " + err.Error())
	}
	for _, o := range others {
		if o.Ahead {
			text := fmt.Sprintf("%s comes before %s, so the runtime uses that network; remove it, or give --conflist a name that sorts first", o.Name, a.Conflist.Path)
			r.fail(text)
			r.tell(foreignAhead, text)
		}
		for _, p := range o.Ranges {
			if !slices.ContainsFunc(ranges, func(own netip.Prefix) bool { return own.Contains(p.Addr()) && own.Bits() <= p.Bits() }) {
				r.warn(fmt.Sprintf("%s: range %v is outside spec.podCIDRs %v, so other nodes have no route to its pods; remove the file, or change the range", o.Name, p, ranges))
			}
		}
	}
}

// unwrap returns the errors that errors.Join has joined in err.
func unwrap(err error) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, unwrap(e)...)
		}
		return all
	}
	return []error{err}
}

// Remove removes the conflist, the routes, the VXLAN device, the transit rules (see acceptTransit)
// and the counters of ADDs. It keeps the plugin files, because the runtime needs them to delete
// running pods.
func (a *Agent) Remove() error {
	removed, err := a.Conflist.Remove()
	if removed {
		a.Log.Info("remove " + a.Conflist.Path)
	}
	changes, applyErr := a.Kernel.Apply(cluster.State{})
	for _, c := range changes {
		a.Log.Info(c)
	}
	countersErr := os.Remove(counters.Path)
	if errors.Is(countersErr, fs.ErrNotExist) {
		countersErr = nil
	}
	return errors.Join(err, applyErr, a.Host.DeleteTransit(), countersErr)
}
