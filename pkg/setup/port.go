package setup

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// attachTries is how often AttachPort starts again when somebody deletes its bridge.
const attachTries = 5

// ErrAttached says that the attachment exists and works.
var ErrAttached = errors.New("it is attached already; delete that attachment first")

// ErrBridgeGone says that somebody deleted the bridge while a port was made on it.
var ErrBridgeGone = errors.New("somebody has deleted the bridge meanwhile")

// Plugged tells what AttachPort has made.
type Plugged struct {
	BridgeMAC, PortMAC, ContainerMAC net.HardwareAddr
	BridgeMTU, MTU                   int  // bytes; MTU is that of both ends
	unheard                          bool // nobody on the bridge listens to reports of multicast groups
	bridge                           int  // its index
}

// CheckAttachable says whether AttachPort would find the names free, before
// anything is touched: the errors are ErrAttached, ErrTaken, ErrNotBridge or, of a link
// that is given, ErrNoLink. What a killed AttachPort has left of the same attachment is
// deleted.
func (n *Host) CheckAttachable(p *Port) error {
	if err := bridges.CheckBridge(n.Namespace, p.Network.Bridge); err != nil {
		return err
	}
	port, err := rtnl.ByName(n.Namespace, p.Port())
	if err == nil {
		// The port goes up last, so one that is down was never finished.
		if port.Up && port.Master != 0 {
			return fmt.Errorf("attach %s of container %s: %w", p.Interface, p.Attachment.Container, ErrAttached)
		}
		_, err = n.Unplug(p.Attachment, p.HostPorts...)
	} else if rtnl.Absent(err) { // it may have gone with its namespace
		err = n.forgetPort(p.Port())
	}
	if err != nil {
		return err
	}
	if p.Given != "" {
		_, err = n.given(p)
		return err
	}
	_, err = rtnl.ByName(p.Container, p.Interface)
	if err == nil {
		return fmt.Errorf("create %s in network namespace %s: the name is taken: %w", p.Interface, p.Container.Path, ErrTaken)
	}
	if !rtnl.Absent(err) {
		return err
	}
	return nil
}

// AttachPort connects a container to its network, which it makes or mends first,
// and returns when packets pass. If it fails it leaves nothing of it. DetachPort
// is its inverse. Call CheckAttachable before: a name that is taken is an error
// here too, but one of the kernel's. Where somebody deletes the bridge meanwhile it starts
// again, and fails with ErrBridgeGone when that goes on.
//
// Any number may run at once: whatever the containers of a host share is made
// under a lock on the host's namespace.
func (n *Host) AttachPort(p *Port) (done *Plugged, err error) {
	for range attachTries {
		if done, err = n.attachOnce(p); !errors.Is(err, ErrBridgeGone) {
			break
		}
	}
	return done, err
}

func (n *Host) attachOnce(p *Port) (done *Plugged, err error) {
	if done, err = n.plug(p); errors.Is(err, flock.ErrTimeout) {
		return nil, err // nothing was done, and the next wait would be for the same process
	} else if err != nil {
		flock.Undoing()
		return nil, errors.Join(err, n.ReleaseNetwork(p.Network.Bridge))
	}
	for _, step := range []func(*Namespace, *Port) error{bridges.TagPort, ownrules.GuardPort, bridges.LimitPort, ownrules.Publish} {
		if err = step(n.Namespace, p); err != nil {
			break
		}
	}
	if err == nil {
		err = n.raisePort(p, done)
	}
	if err != nil {
		flock.Undoing()
		return nil, errors.Join(n.explainGone(done.bridge, err), n.DetachPort(p.Attachment, p.Network.Bridge, p.HostPorts...))
	}
	return done, nil
}

// explainGone says of an error that it comes of the end of a bridge, by its index, if that has
// come: the kernel then has many errors for what is done with a port. 0 is a bridge of which
// no more is known than that it was not found.
func (n *Host) explainGone(bridge int, err error) error {
	gone := bridge == 0
	if !gone {
		_, failed := rtnl.ByIndex(n.Namespace, bridge)
		gone = rtnl.Absent(failed)
	}
	if gone {
		err = fmt.Errorf("%w: %w", ErrBridgeGone, err)
	}
	return err
}

// raisePort sets both ends up, the container's first: a port that is up is one
// that was finished.
func (n *Host) raisePort(p *Port, on *Plugged) error {
	if p.Down || p.Given != "" {
		return n.setPortUp(p)
	}
	before, err := p.Container.Sysctls(p.Sysctls)
	if err != nil {
		return err
	}
	if err = rtnl.Configure(p.Container, p.Interface, inside(p, on.unheard)); err == nil {
		err = n.setPortUp(p)
	}
	if err == nil {
		err = n.awaitPort(p)
	}
	if err != nil {
		for key, value := range before { // not all are the interface's own, and go with it
			err = errors.Join(err, p.Container.SetSysctl(key, value))
		}
	}
	return err
}

// GiveAddresses completes a port that AttachPort made without addresses, because a DHCP server is
// asked for them by the port itself. It gives the container its addresses and routes, and makes
// what the host and the network need for them: the guard, host ports, gateways, masquerade. p.MAC has
// to be that of Plugged. If it fails, DetachPort takes back what it has made. The address and
// its guard come first: if a later step fails, the lease is given back from that address.
func (n *Host) GiveAddresses(p *Port) error {
	if p.Given == "" {
		if err := rtnl.Configure(p.Container, p.Interface, inside(p, false)); err != nil {
			return err
		}
	}
	if err := ownrules.GuardPort(n.Namespace, p); err != nil {
		return err
	}
	lock, err := n.holdNetwork(p.Network)
	if err != nil {
		return err
	}
	lock.Unlock() // the port itself holds the network
	return ownrules.Publish(n.Namespace, p)
}

// inside is what the container's end gets. unheard is that of Plugged.
func inside(p *Port, unheard bool) rtnl.Inside {
	return rtnl.Inside{Addresses: p.Addresses, Routes: p.Routes, Sysctls: p.Sysctls, Detect: p.DetectDuplicates, Unheard: unheard, Automatic: p.Autoconfigured}
}

func (n *Host) setPortUp(p *Port) error {
	var up netns.Batch
	rtnl.SetUp(&up, p.LinkName())
	return n.Send(up)
}

// awaitPort waits until packets pass.
func (n *Host) awaitPort(p *Port) error {
	if err := n.awaitForwarding(p.Port()); err != nil {
		return err
	}
	if err := rtnl.AwaitCarrier(p.Container, p.Interface, func(l rtnl.Link) bool { return l.Running }); err != nil {
		return fmt.Errorf("wait for %s in %s: %w", p.Interface, p.Container.Path, err) // without, IPv6 has no route yet
	}
	return nil
}

// DetachPort deletes a port, wherever its other end is, or takes a given link off the
// bridge. Its host ports go too, and with
// the last port of the bridge all that belongs to the network. Where its host ports
// are known it is quicker to name them.
func (n *Host) DetachPort(a Attachment, bridge string, known ...HostPort) error {
	on, err := n.Unplug(a, known...)
	return errors.Join(err, n.ReleaseNetwork(bridge, on))
}

// forgetPort deletes what is left on the host of a port that is not there, but for its host
// ports: these take long to find.
func (n *Host) forgetPort(name string) error {
	var b netns.Batch
	rtnl.Delete(&b, plan.IFBOf(name))
	return errors.Join(n.Send(b), ownrules.UnguardPort(n.Namespace, name))
}

// Unplug is DetachPort that leaves the network, and says which bridge the port was on, "" if
// none. A process that goes on after it has a child left to reap (rtnl/removal.go).
func (n *Host) Unplug(a Attachment, known ...HostPort) (bridge string, err error) {
	published := ownrules.Unpublish(n.Namespace, a, known)
	bridge, err = n.removePort(a.Port())
	return bridge, errors.Join(published, err, ownrules.UnguardPort(n.Namespace, a.Port()))
}

// plug makes the veth pair, down, or plugs in the given link, while it holds the network.
func (n *Host) plug(p *Port) (*Plugged, error) {
	lock, err := n.holdNetwork(p.Network)
	var br rtnl.Link
	if err == nil {
		defer lock.Unlock()
		br, err = rtnl.ByName(n.Namespace, p.Network.Bridge)
	}
	if err == nil {
		err = bridges.KeepMACBefore(n.Namespace, br)
	}
	if rtnl.Absent(err) {
		return nil, n.explainGone(0, err)
	}
	if err != nil {
		return nil, err
	}
	if p.Given != "" {
		return n.plugGiven(p, br)
	}
	done := &Plugged{
		BridgeMAC: br.MAC, PortMAC: p.PortMAC(), ContainerMAC: p.EndMAC(),
		BridgeMTU: br.MTU, MTU: p.MTUOn(br.MTU), unheard: br.Alias == plan.Owner && !br.Snoops,
		bridge: br.Index,
	}
	pair := rtnl.Veth{
		Name: p.Port(), MAC: done.PortMAC, MasterIndex: br.Index,
		Peer: p.Interface, PeerMAC: done.ContainerMAC, PeerNamespace: p.Container,
		MTU: done.MTU,
	}
	var b netns.Batch
	b.Add(fmt.Sprintf("create veth pair %s, %s on bridge %s", pair.Name, pair.Peer, p.Network.Bridge), pair.Request())
	b.Add("configure port "+pair.Name, portRequest(p))
	rtnl.SilenceIPv6(&b, pair.Name)
	if err = n.Send(b); err == nil {
		done.BridgeMAC, err = bridges.KeepMACWith(n.Namespace, br, done.PortMAC)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // with EEXIST it is not ours
		err = errors.Join(n.explainGone(br.Index, explainFull(br.Name, err)), rtnl.DeleteLink(n.Namespace, p.Port()))
	}
	return done, err
}

// explainFull says more of the error that a bridge without a free port gives.
func explainFull(bridge string, err error) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("add port to bridge %s: %w", bridge, ErrBridgeFull)
	}
	return err
}

// portRequest gives the host end its alias and its settings as a port, none of
// which the kernel applies on creation.
func portRequest(p *Port) *nl.NetlinkRequest {
	req := settingsRequest(p)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	return req
}

// settingsRequest sets what a port of a bridge may do.
func settingsRequest(p *Port) *nl.NetlinkRequest {
	req := rtnl.NewLinkRequest(p.LinkName(), 0)
	req.AddData(rtnl.PortInfo(map[int]bool{rtnl.BrportMode: p.Hairpin, rtnl.BrportIsolated: p.Isolated}))
	return req
}

// awaitForwarding waits until the bridge forwards what comes from a port.
func (n *Host) awaitForwarding(name string) error {
	plugged := true
	err := rtnl.AwaitCarrier(n.Namespace, name, func(l rtnl.Link) bool { plugged = l.Master != 0; return l.Forwarding || !plugged })
	if !plugged {
		return fmt.Errorf("wait for port %s: it is on no bridge any more", name)
	}
	if err != nil {
		return fmt.Errorf("wait for port %s: the bridge does not forward its packets; does it run STP? %w", name, err)
	}
	return nil
}
