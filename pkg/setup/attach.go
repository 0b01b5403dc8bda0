package setup

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/conntrack"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// attachTries is the number of attempts that AttachPort makes. It makes another attempt if a
// program deletes the bridge or our nftables tables during an attempt.
const attachTries = 5

// ErrAttached is returned if the attachment already has a bridge port that is up.
var ErrAttached = errors.New("the container is attached already; delete that attachment first")

// ErrBridgeGone is returned if another program deletes the bridge while AttachPort adds a port to
// it.
var ErrBridgeGone = errors.New("the bridge was deleted meanwhile")

// Plugged is the result of AttachPort. It describes the new port and its bridge.
type Plugged struct {
	BridgeMAC, PortMAC, ContainerMAC net.HardwareAddr
	BridgeMTU, MTU                   int  // MTU of the bridge and of both ends of the veth pair, in bytes
	noQuerier                        bool // the bridge is ours and has multicast snooping off, so nothing reads the container's MLD reports
	bridge                           int  // index of the bridge
}

// CheckAttachable returns an error if AttachPort would fail for one of these reasons:
//
//   - ErrAttached: the attachment already has a port that is up.
//   - ErrTaken: the container already has an interface with this name, or Port.ExistingLink is in use.
//   - ErrNotBridge: a link that is no bridge has the name of the bridge.
//   - ErrNoLink: the host has no link with the name Port.ExistingLink.
//
// If a killed AttachPort has left an unfinished port of this attachment, CheckAttachable deletes
// the port. It changes nothing else.
func (h *Host) CheckAttachable(p *Port) error {
	if err := bridges.CheckBridge(h.Namespace, p.Network.Bridge); err != nil {
		return err
	}
	port, err := rtnl.ByName(h.Namespace, p.Port())
	if err == nil {
		// A port that is up is finished, because AttachPort sets the host end up as its last step.
		if port.Up && port.Master != 0 {
			return fmt.Errorf("attach %s of container %s: %w", p.Interface, p.Attachment.Container, ErrAttached)
		}
		_, err = h.Unplug(p.Attachment, p.HostPorts...)
	} else if rtnl.Absent(err) { // the port was perhaps deleted with the container's namespace, but its IFB and guard still exist
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

// AttachPort connects a container to its network. First it creates the missing objects of the
// network: the bridge, gateway addresses and rules. It returns when the port passes packets. If it
// fails, it deletes the port. If the bridge then has no port of ours, it also releases the network
// (see ReleaseNetwork). Sysctls of the host keep the values that AttachPort has set. DetachPort is
// the inverse.
//
// Call CheckAttachable first. If a link already has a name that AttachPort needs, the error of
// CheckAttachable names this link. AttachPort would return only the kernel's error.
//
// If another program deletes the bridge or our nftables tables during the call, AttachPort starts
// again. After attachTries attempts it returns ErrBridgeGone or ErrTablesGone.
//
// Any number of processes may call AttachPort at the same time. A lock on the host's network
// namespace protects the objects that all containers of the host share.
func (h *Host) AttachPort(p *Port) (done *Plugged, err error) {
	for range attachTries {
		if done, err = h.attachOnce(p); !errors.Is(err, ErrBridgeGone) && !errors.Is(err, ErrTablesGone) {
			break
		}
	}
	return done, err
}

func (h *Host) attachOnce(p *Port) (done *Plugged, err error) {
	if done, err = h.plug(p); errors.As(err, new(notLocked)) {
		return nil, err // plug has changed nothing, and ReleaseNetwork would wait for the same lock
	} else if err != nil {
		flock.Undoing()
		return nil, errors.Join(err, h.ReleaseNetwork(p.Network.Bridge))
	}
	if p.ExistingLink != "" { // plugExisting has done the steps that follow
		return done, nil
	}
	for _, step := range []func(*Namespace, *Port) error{forgetConnections, bridges.TagPort, ownrules.GuardPort, ownrules.JoinFastPath, bridges.LimitPort, hostports.Publish} {
		if err = step(h.Namespace, p); err != nil {
			break
		}
	}
	if err == nil {
		err = h.finishPort(p, done)
	}
	if err != nil {
		flock.Undoing()
		return nil, errors.Join(h.explainGone(done.bridge, err), h.DetachPort(p.Attachment, p.Network.Bridge, p.HostPorts...))
	}
	return done, nil
}

// forgetConnections deletes the conntrack entries for the addresses of p, if the network has a fast
// path. Such entries may be left from an earlier container with the same address. With these
// entries, the fast path would forward packets of the earlier container's connections to the new
// container.
func forgetConnections(n *Namespace, p *Port) error {
	if p.Network.FastPath == FastPathOff {
		return nil
	}
	return conntrack.Forget(n, p.Addresses)
}

// explainGone wraps err with ErrBridgeGone if the bridge was deleted. The parameter bridge is the
// index of the bridge, or 0 if the caller has not found the bridge. explainGone looks for a link
// with this index, because err does not show whether the bridge exists: the kernel returns many
// different errors for requests about ports of a deleted bridge.
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

// finishPort configures the container's end of the veth pair and sets both ends up. It sets the
// host end up last, because CheckAttachable treats a port that is up as finished.
func (h *Host) finishPort(p *Port, on *Plugged) error {
	if p.Down {
		return h.setPortUp(p)
	}
	before, err := p.Container.Sysctls(p.Sysctls)
	if err != nil {
		return err
	}
	if err = rtnl.Configure(p.Container, p.Interface, containerEnd(p, on.noQuerier)); err == nil {
		err = h.setPortUp(p)
	}
	if err == nil {
		err = h.awaitPort(p)
	}
	if err != nil {
		for key, value := range before { // the kernel keeps the old values of sysctls that apply to the whole namespace, even when the interface is deleted
			err = errors.Join(err, p.Container.SetSysctl(key, value))
		}
	}
	return err
}

// AddAddresses adds the container's addresses to a port that AttachPort created without addresses.
// An IPAM plugin such as dhcp gets the addresses from a DHCP server through the port, so the port
// must exist first. AddAddresses configures the addresses and routes of the container. On the host,
// it configures the guard, gateways, masquerade and host ports. p.MAC must be Plugged.ContainerMAC.
// After an error, the caller must call DetachPort.
//
// AddAddresses configures the addresses and the guard before everything else, because the DHCP
// client needs both. If a later step fails, the client can still release its lease.
func (h *Host) AddAddresses(p *Port) error {
	if p.ExistingLink == "" {
		if err := rtnl.Configure(p.Container, p.Interface, containerEnd(p, false)); err != nil {
			return err
		}
	}
	if err := ownrules.GuardPort(h.Namespace, p); err != nil {
		return err
	}
	if err := forgetConnections(h.Namespace, p); err != nil {
		return err
	}
	lock, err := h.lockComplete(p.Network)
	if err != nil {
		return err
	}
	lock.Unlock() // a network with a port is not deleted
	return hostports.Publish(h.Namespace, p)
}

// containerEnd returns the configuration of the container's end of the veth pair. noQuerier is as in
// Plugged.
func containerEnd(p *Port, noQuerier bool) rtnl.EndConfig {
	return rtnl.EndConfig{Addresses: p.Addresses, Routes: p.Routes, Sysctls: p.Sysctls, DetectDuplicates: p.DetectDuplicates, NoQuerier: noQuerier, Autoconfigured: p.Autoconfigured}
}

func (h *Host) setPortUp(p *Port) error {
	var up netns.Batch
	rtnl.SetUp(&up, p.LinkName())
	return h.Send(up)
}

// awaitPort waits until both ends of the veth pair pass packets.
func (h *Host) awaitPort(p *Port) error {
	if err := h.awaitForwarding(p.Port()); err != nil {
		return err
	}
	return awaitRunning(p.Container, p.Interface)
}

// awaitRunning waits until the kernel has processed the carrier event of a link. Before that, the
// kernel drops packets that leave through the link, and uses no IPv6 route through the link.
func awaitRunning(n *Namespace, name string) error {
	if err := rtnl.AwaitCarrier(n, name, func(l rtnl.Link) bool { return l.Running }); err != nil {
		return fmt.Errorf("wait for %s in %s: %w", name, n.Path, err)
	}
	return nil
}

// plug creates the veth pair of a port, with both ends down, and adds the host end to the bridge.
// If Port.ExistingLink is set, plug calls plugExisting instead. plug holds the lock that
// lockComplete returns, so no other process of bridgeveth deletes the bridge or the rules meanwhile.
func (h *Host) plug(p *Port) (*Plugged, error) {
	lock, err := h.lockComplete(p.Network)
	var br rtnl.Link
	if err == nil {
		defer lock.Unlock()
		br, err = rtnl.ByName(h.Namespace, p.Network.Bridge)
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
		BridgeMTU: br.MTU, MTU: p.MTUOn(br.MTU), noQuerier: br.Own && !br.Snoops,
		bridge: br.Index,
	}
	pair := rtnl.Veth{
		Name: p.Port(), MAC: done.PortMAC, MasterIndex: br.Index,
		Peer: p.Interface, PeerMAC: done.ContainerMAC, PeerNamespace: p.Container,
		MTU: done.MTU,
	}
	var b netns.Batch
	err = bridges.KeepMACBeforeJoin(h.Namespace, &b, br, done.PortMAC)
	b.Add(fmt.Sprintf("create veth pair %s, %s on bridge %s", pair.Name, pair.Peer, p.Network.Bridge), pair.Request())
	b.Add("configure port "+pair.Name, portRequest(p))
	rtnl.DisableGeneratedIPv6(&b, pair.Name)
	if err == nil {
		err = h.Send(b)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // on EEXIST, another link has this name and must not be deleted
		var undo netns.Batch
		rtnl.Delete(&undo, pair.Name)
		err = errors.Join(h.explainGone(br.Index, explainFull(br.Name, err)), h.Send(undo))
	}
	return done, err
}

// explainFull returns ErrBridgeFull for EXFULL, the kernel's error for the 1,024th port of a bridge.
// It returns every other error unchanged.
func explainFull(bridge string, err error) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("add port to bridge %s: %w", bridge, ErrBridgeFull)
	}
	return err
}

// portRequest returns the request that sets the alias and the bridge port settings of the host end.
// The kernel ignores the alias and the settings in the request that creates the veth pair, so they
// need a second request.
func portRequest(p *Port) *nl.NetlinkRequest {
	req := settingsRequest(p)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	return req
}

// settingsRequest returns the request that sets hairpin mode, isolation and BPDU guard of a bridge
// port. The request never switches the BPDU guard off, because another program may have switched it
// on.
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
