package setup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// A port may take portWait to forward, once both its ends are up: the kernel sees
// the carrier in a work queue of its own (net/core/link_watch.c).
const (
	portWait  = 2 * time.Second
	portPause = 200 * time.Microsecond
)

// attachTries is how often AttachPort starts again when somebody deletes its bridge.
const attachTries = 5

// AnyMTU has VerifyPort not look at the MTU of a port.
const AnyMTU = -1

// ErrAttached says that the attachment exists and works.
var ErrAttached = errors.New("it is attached already; delete that attachment first")

// ErrBridgeGone says that somebody deleted the bridge while a port was made on it.
var ErrBridgeGone = errors.New("somebody has deleted the bridge meanwhile")

// Port is a container's place on a network: a veth pair with one end on the
// bridge and the other in the container's namespace, or a link that was given.
type Port struct {
	Attachment
	Given     string // the link that another plugin has made on the host, such as a tap; what is behind it is left alone
	Container *Namespace
	Network   *Network
	MTU       int              // bytes, of both ends; 0 is that of the bridge
	MAC       net.HardwareAddr // of the container's end; nil is one that follows from its address
	Hairpin   bool             // the bridge may send back by the port what came by it
	Isolated  bool             // it sends nothing to other isolated ports, and gets nothing from them
	Guard     Guard
	Addresses []netip.Prefix // of the container
	Routes    []Route        // of the container, in an order in which each finds its gateway
	Bandwidth Bandwidth      // limits in bits per second; zero is none
	HostPorts []HostPort     // that lead to the container's first address of each family

	Sysctls          map[string]string // of the container, by path below /proc/sys/net; set before its end is up
	DetectDuplicates bool              // of IPv6 addresses: they are of use only some seconds later
	Autoconfigured   bool              // routers on the network give the container IPv6 addresses and routes (RFC 4862)
	Down             bool              // the container's end is left as the kernel makes it, for somebody else
}

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
func (n *Namespace) CheckAttachable(p *Port) error {
	if err := n.CheckBridge(p.Network.Bridge); err != nil {
		return err
	}
	port, err := n.link(p.Port())
	if err == nil {
		// The port goes up last, so one that is down was never finished.
		if port.up && port.master != 0 {
			return fmt.Errorf("attach %s of container %s: %w", p.Interface, p.Attachment.Container, ErrAttached)
		}
		_, err = n.Unplug(p.Attachment, p.HostPorts...)
	} else if absent(err) { // it may have gone with its namespace
		err = n.forgetPort(p.Port())
	}
	if err != nil {
		return err
	}
	if p.Given != "" {
		_, err = n.given(p)
		return err
	}
	_, err = p.Container.link(p.Interface)
	if err == nil {
		return fmt.Errorf("create %s in network namespace %s: the name is taken: %w", p.Interface, p.Container.Path, ErrTaken)
	}
	if !absent(err) {
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
func (n *Namespace) AttachPort(p *Port) (done *Plugged, err error) {
	for range attachTries {
		if done, err = n.attachOnce(p); !errors.Is(err, ErrBridgeGone) {
			break
		}
	}
	return done, err
}

func (n *Namespace) attachOnce(p *Port) (done *Plugged, err error) {
	if done, err = n.plug(p); errors.Is(err, flock.ErrTimeout) {
		return nil, err // nothing was done, and the next wait would be for the same process
	} else if err != nil {
		flock.Undoing()
		return nil, errors.Join(err, n.ReleaseNetwork(p.Network.Bridge))
	}
	for _, step := range []func(*Port) error{n.tagPort, n.guardPort, n.limitPort, n.publish} {
		if err = step(p); err != nil {
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
func (n *Namespace) explainGone(bridge int, err error) error {
	gone := bridge == 0
	if !gone {
		_, failed := n.linkAt(bridge)
		gone = absent(failed)
	}
	if gone {
		err = fmt.Errorf("%w: %w", ErrBridgeGone, err)
	}
	return err
}

// raisePort sets both ends up, the container's first: a port that is up is one
// that was finished.
func (n *Namespace) raisePort(p *Port, on *Plugged) error {
	if p.Down || p.Given != "" {
		return n.setPortUp(p)
	}
	before, err := p.Container.sysctls(p.Sysctls)
	if err != nil {
		return err
	}
	if err = p.Container.configure(p.Interface, p.inside(on.unheard)); err == nil {
		err = n.setPortUp(p)
	}
	if err == nil {
		err = n.awaitPort(p)
	}
	if err != nil {
		for key, value := range before { // not all are the interface's own, and go with it
			err = errors.Join(err, p.Container.setSysctl(key, value))
		}
	}
	return err
}

// GiveAddresses completes a port that AttachPort made without addresses, because a DHCP server is
// asked for them by the port itself. It gives the container its addresses and routes, and makes
// what the host and the network need for them: the guard, host ports, gateways, masquerade. p.MAC has
// to be that of Plugged. If it fails, DetachPort takes back what it has made. The address and
// its guard come first: if a later step fails, the lease is given back from that address.
func (n *Namespace) GiveAddresses(p *Port) error {
	if p.Given == "" {
		if err := p.Container.configure(p.Interface, p.inside(false)); err != nil {
			return err
		}
	}
	if err := n.guardPort(p); err != nil {
		return err
	}
	lock, err := n.holdNetwork(p.Network)
	if err != nil {
		return err
	}
	lock.Unlock() // the port itself holds the network
	return n.publish(p)
}

// inside is what the container's end gets. unheard is that of Plugged.
func (p *Port) inside(unheard bool) inside {
	return inside{p.Addresses, p.Routes, p.Sysctls, p.DetectDuplicates, unheard, p.Autoconfigured}
}

func (n *Namespace) setPortUp(p *Port) error {
	var up batch
	up.setUp(p.name())
	return n.send(up)
}

// awaitPort waits until packets pass.
func (n *Namespace) awaitPort(p *Port) error {
	if err := n.awaitForwarding(p.Port()); err != nil {
		return err
	}
	if err := p.Container.awaitCarrier(p.Interface, func(l link) bool { return l.running }); err != nil {
		return fmt.Errorf("wait for %s in %s: %w", p.Interface, p.Container.Path, err) // without, IPv6 has no route yet
	}
	return nil
}

// DetachPort deletes a port, wherever its other end is, or takes a given link off the
// bridge. Its host ports go too, and with
// the last port of the bridge all that belongs to the network. Where its host ports
// are known it is quicker to name them.
func (n *Namespace) DetachPort(a Attachment, bridge string, known ...HostPort) error {
	on, err := n.Unplug(a, known...)
	return errors.Join(err, n.ReleaseNetwork(bridge, on))
}

// forgetPort deletes what is left on the host of a port that is not there, but for its host
// ports: these take long to find.
func (n *Namespace) forgetPort(name string) error {
	var b batch
	b.delete(ifbOf(name))
	return errors.Join(n.send(b), n.unguardPort(name))
}

// Unplug is DetachPort that leaves the network, and says which bridge the port was on, "" if
// none. A process that goes on after it has a child left to reap (removal.go).
func (n *Namespace) Unplug(a Attachment, known ...HostPort) (bridge string, err error) {
	published := n.unpublish(a, known)
	bridge, err = n.removePort(a.Port())
	return bridge, errors.Join(published, err, n.unguardPort(a.Port()))
}

// plug makes the veth pair, down, or plugs in the given link, while it holds the network.
func (n *Namespace) plug(p *Port) (*Plugged, error) {
	lock, err := n.holdNetwork(p.Network)
	var br link
	if err == nil {
		defer lock.Unlock()
		br, err = n.link(p.Network.Bridge)
	}
	if err == nil {
		err = n.keepMACBefore(br)
	}
	if absent(err) {
		return nil, n.explainGone(0, err)
	}
	if err != nil {
		return nil, err
	}
	if p.Given != "" {
		return n.plugGiven(p, br)
	}
	done := &Plugged{
		BridgeMAC: br.mac, PortMAC: p.portMAC(), ContainerMAC: p.mac(),
		BridgeMTU: br.mtu, MTU: p.mtu(br.mtu), unheard: br.alias == owner && !br.snoops,
		bridge: br.index,
	}
	pair := veth{
		name: p.Port(), mac: done.PortMAC, masterIndex: br.index,
		peer: p.Interface, peerMAC: done.ContainerMAC, peerNamespace: p.Container,
		mtu: done.MTU,
	}
	var b batch
	b.add(fmt.Sprintf("create veth pair %s, %s on bridge %s", pair.name, pair.peer, p.Network.Bridge), pair.request())
	b.add("configure port "+pair.name, p.portRequest())
	b.silenceIPv6(pair.name)
	if err = n.send(b); err == nil {
		done.BridgeMAC, err = n.keepMACWith(br, done.PortMAC)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // with EEXIST it is not ours
		err = errors.Join(n.explainGone(br.index, explainFull(br.name, err)), n.deleteLink(p.Port()))
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

// name is what the kernel calls the link on the bridge.
func (p *Port) name() string {
	if p.Given != "" {
		return p.Given
	}
	return p.Port()
}

// portRequest gives the host end its alias and its settings as a port, none of
// which the kernel applies on creation.
func (p *Port) portRequest() *nl.NetlinkRequest {
	req := p.settingsRequest()
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.alias())))
	return req
}

// settingsRequest sets what a port of a bridge may do.
func (p *Port) settingsRequest() *nl.NetlinkRequest {
	req := newLinkRequest(p.name(), 0)
	req.AddData(portInfo(map[int]bool{brportMode: p.Hairpin, brportIsolated: p.Isolated}))
	return req
}

// mac is the link-layer address of the container's end.
func (p *Port) mac() net.HardwareAddr {
	if p.MAC != nil {
		return p.MAC
	}
	return p.containerMAC(p.Addresses)
}

// awaitForwarding waits until the bridge forwards what comes from a port.
func (n *Namespace) awaitForwarding(name string) error {
	plugged := true
	err := n.awaitCarrier(name, func(l link) bool { plugged = l.master != 0; return l.forwarding || !plugged })
	if !plugged {
		return fmt.Errorf("wait for port %s: it is on no bridge any more", name)
	}
	if err != nil {
		return fmt.Errorf("wait for port %s: the bridge does not forward its packets; does it run STP? %w", name, err)
	}
	return nil
}

// awaitCarrier waits until a link is as it is once the kernel has seen its carrier. Since
// Linux 6.9 asking makes it look (rtnl_getlink in net/core/rtnetlink.c).
func (n *Namespace) awaitCarrier(name string, ready func(link) bool) error {
	for start := time.Now(); ; time.Sleep(portPause) {
		l, err := n.link(name)
		if err != nil || ready(l) {
			return err
		}
		if time.Since(start) > portWait {
			return fmt.Errorf("after %s it has no carrier: %w", portWait, os.ErrDeadlineExceeded)
		}
	}
}
