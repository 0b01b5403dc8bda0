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

// attachTries is how often AttachPort tries when somebody deletes its bridge or its tables.
const attachTries = 5

// ErrAttached is returned for an attachment that exists and works.
var ErrAttached = errors.New("the container is attached already; delete that attachment first")

// ErrBridgeGone is returned if the bridge was deleted while a port was made on it.
var ErrBridgeGone = errors.New("the bridge was deleted meanwhile")

// Plugged is the result of AttachPort.
type Plugged struct {
	BridgeMAC, PortMAC, ContainerMAC net.HardwareAddr
	BridgeMTU, MTU                   int  // bytes; MTU is that of both ends
	unheard                          bool // our bridge does not snoop: nobody reads reports of multicast groups
	bridge                           int  // index of the bridge
}

// CheckAttachable reports whether the names that AttachPort needs are free, before anything is
// changed. Its errors are ErrAttached, ErrTaken, ErrNotBridge and, for Port.ExistingLink,
// ErrNoLink. It deletes what a killed AttachPort has left of the same attachment.
func (h *Host) CheckAttachable(p *Port) error {
	if err := bridges.CheckBridge(h.Namespace, p.Network.Bridge); err != nil {
		return err
	}
	port, err := rtnl.ByName(h.Namespace, p.Port())
	if err == nil {
		// AttachPort sets the port up as its last step, so a port that is down is unfinished.
		if port.Up && port.Master != 0 {
			return fmt.Errorf("attach %s of container %s: %w", p.Interface, p.Attachment.Container, ErrAttached)
		}
		_, err = h.Unplug(p.Attachment, p.HostPorts...)
	} else if rtnl.Absent(err) { // the port may have been deleted with its namespace
		err = h.removeRemains(p.Port())
	}
	if err != nil {
		return err
	}
	if p.ExistingLink != "" {
		_, err = h.existingLink(p)
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

// AttachPort connects a container to its network and returns when packets pass. It creates or
// completes the network first. If it fails, it leaves nothing behind. DetachPort is the inverse.
// Call CheckAttachable before: AttachPort returns only the kernel's error for a name that is
// taken. If somebody deletes the bridge or the tables meanwhile, AttachPort starts again, and
// after a few attempts returns ErrBridgeGone or ErrTablesGone.
//
// Any number of processes may call it at once: what the containers of a host share is made
// under a lock on the host's network namespace.
func (h *Host) AttachPort(p *Port) (done *Plugged, err error) {
	for range attachTries {
		if done, err = h.attachOnce(p); !errors.Is(err, ErrBridgeGone) && !errors.Is(err, ErrTablesGone) {
			break
		}
	}
	return done, err
}

func (h *Host) attachOnce(p *Port) (done *Plugged, err error) {
	if done, err = h.plug(p); errors.Is(err, flock.ErrTimeout) {
		return nil, err // nothing was changed, and ReleaseNetwork would wait for the same process
	} else if err != nil {
		flock.Undoing()
		return nil, errors.Join(err, h.ReleaseNetwork(p.Network.Bridge))
	}
	for _, step := range []func(*Namespace, *Port) error{bridges.TagPort, ownrules.GuardPort, bridges.LimitPort, ownrules.Publish} {
		if err = step(h.Namespace, p); err != nil {
			break
		}
	}
	if err == nil {
		err = h.raisePort(p, done)
	}
	if err != nil {
		flock.Undoing()
		return nil, errors.Join(h.explainGone(done.bridge, err), h.DetachPort(p.Attachment, p.Network.Bridge, p.HostPorts...))
	}
	return done, nil
}

// explainGone wraps err with ErrBridgeGone if the bridge with this index does not exist any more.
// The kernel returns many different errors for requests about its ports then. Index 0 stands for
// a bridge that was not found.
func (h *Host) explainGone(bridge int, err error) error {
	gone := bridge == 0
	if !gone {
		_, failed := rtnl.ByIndex(h.Namespace, bridge)
		gone = rtnl.Absent(failed)
	}
	if gone {
		err = fmt.Errorf("%w: %w", ErrBridgeGone, err)
	}
	return err
}

// raisePort sets both ends up, the container's end first. CheckAttachable takes a port that is up
// for a finished one.
func (h *Host) raisePort(p *Port, on *Plugged) error {
	if p.Down || p.ExistingLink != "" {
		return h.setPortUp(p)
	}
	before, err := p.Container.Sysctls(p.Sysctls)
	if err != nil {
		return err
	}
	if err = rtnl.Configure(p.Container, p.Interface, inside(p, on.unheard)); err == nil {
		err = h.setPortUp(p)
	}
	if err == nil {
		err = h.awaitPort(p)
	}
	if err != nil {
		for key, value := range before { // sysctls of the whole namespace stay when the interface is deleted
			err = errors.Join(err, p.Container.SetSysctl(key, value))
		}
	}
	return err
}

// AddAddresses completes a port that AttachPort made without addresses, because the IPAM plugin
// asks a DHCP server through the port. It configures the container's addresses and routes, and
// what the host needs for them: guard, host ports, gateways, masquerade. p.MAC must be
// Plugged.ContainerMAC. If it fails, DetachPort deletes what it has made. The address and its
// guard come first: if a later step fails, the DHCP client releases the lease from that address.
func (h *Host) AddAddresses(p *Port) error {
	if p.ExistingLink == "" {
		if err := rtnl.Configure(p.Container, p.Interface, inside(p, false)); err != nil {
			return err
		}
	}
	if err := ownrules.GuardPort(h.Namespace, p); err != nil {
		return err
	}
	lock, err := h.lockComplete(p.Network)
	if err != nil {
		return err
	}
	lock.Unlock() // the port keeps the network from being deleted
	return ownrules.Publish(h.Namespace, p)
}

// inside returns the settings of the container's end. unheard is that of Plugged.
func inside(p *Port, unheard bool) rtnl.EndConfig {
	return rtnl.EndConfig{Addresses: p.Addresses, Routes: p.Routes, Sysctls: p.Sysctls, DetectDuplicates: p.DetectDuplicates, NoQuerier: unheard, Autoconfigured: p.Autoconfigured}
}

func (h *Host) setPortUp(p *Port) error {
	var up netns.Batch
	rtnl.SetUp(&up, p.LinkName())
	return h.Send(up)
}

// awaitPort waits until both ends pass packets.
func (h *Host) awaitPort(p *Port) error {
	if err := h.awaitForwarding(p.Port()); err != nil {
		return err
	}
	if err := rtnl.AwaitCarrier(p.Container, p.Interface, func(l rtnl.Link) bool { return l.Running }); err != nil {
		return fmt.Errorf("wait for %s in %s: %w", p.Interface, p.Container.Path, err) // before that, IPv6 has no route
	}
	return nil
}

// plug makes the veth pair, which stays down, or adds Port.ExistingLink to the bridge, under the
// lock of lockComplete.
func (h *Host) plug(p *Port) (*Plugged, error) {
	lock, err := h.lockComplete(p.Network)
	var br rtnl.Link
	if err == nil {
		defer lock.Unlock()
		br, err = rtnl.ByName(h.Namespace, p.Network.Bridge)
	}
	if err == nil {
		err = bridges.KeepMACBeforeJoin(h.Namespace, br)
	}
	if rtnl.Absent(err) {
		return nil, h.explainGone(0, err)
	}
	if err != nil {
		return nil, err
	}
	if p.ExistingLink != "" {
		return h.plugExisting(p, br)
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
	rtnl.DisableGeneratedIPv6(&b, pair.Name)
	if err = h.Send(b); err == nil {
		done.BridgeMAC, err = bridges.KeepMACAfterJoin(h.Namespace, br, done.PortMAC)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // with EEXIST, the link is not ours
		var undo netns.Batch
		rtnl.Delete(&undo, pair.Name)
		err = errors.Join(h.explainGone(br.Index, explainFull(br.Name, err)), h.Send(undo))
	}
	return done, err
}

// explainFull returns ErrBridgeFull for the error that the kernel returns for the 1,024th port.
func explainFull(bridge string, err error) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("add port to bridge %s: %w", bridge, ErrBridgeFull)
	}
	return err
}

// portRequest returns the request that sets the alias and the port settings of the host end. The
// kernel ignores them in the request that creates the pair.
func portRequest(p *Port) *nl.NetlinkRequest {
	req := settingsRequest(p)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	return req
}

// settingsRequest returns the request that sets hairpin mode, isolation and BPDU guard of a bridge
// port. A BPDU guard that somebody else has switched on stays on.
func settingsRequest(p *Port) *nl.NetlinkRequest {
	settings := map[int]bool{rtnl.BrportMode: p.Hairpin, rtnl.BrportIsolated: p.Isolated}
	if p.BPDUGuard {
		settings[rtnl.BrportBPDUGuard] = true
	}
	req := rtnl.NewLinkRequest(p.LinkName(), 0)
	req.AddData(rtnl.PortInfo(settings))
	return req
}

// awaitForwarding waits until the bridge forwards frames from a port.
func (h *Host) awaitForwarding(name string) error {
	plugged := true
	err := rtnl.AwaitCarrier(h.Namespace, name, func(l rtnl.Link) bool { plugged = l.Master != 0; return l.Forwarding || !plugged })
	if !plugged {
		return fmt.Errorf("wait for port %s: the port is on no bridge any more", name)
	}
	if err != nil {
		return fmt.Errorf("wait for port %s: the bridge does not forward its packets; does it run STP? %w", name, err)
	}
	return nil
}
