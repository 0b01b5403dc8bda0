package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// floor is what no CNI plugin written in Go can do without: the kernel's work for a
// container with a host port, asked for by a process that is running already and knows
// the node, and one start of a program that does nothing. Nothing is looked up, locked,
// checked, remembered or printed.
type floor struct {
	start  string // the program that does nothing
	bridge int    // index
	ports  *nftables.Set
}

var floorGateway = net.IPv4(10, 88, 0, 1)

// newFloor makes the bridge, the map of host ports, and a FORWARD rule, on the node that the
// thread is in.
func newFloor(start string) (*floor, error) {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("make the floor's bridge: %w", err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return nil, err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: floorGateway, Mask: net.CIDRMask(16, 32)}}
	if err := netlink.AddrAdd(br, address); err != nil {
		return nil, err
	}
	for _, rule := range []string{"-i", "-o"} {
		if out, err := exec.Command("iptables", "-w", "-I", "FORWARD", rule, bridgeName, "-j", "ACCEPT").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("iptables -I FORWARD: %w: %s", err, out)
		}
	}
	f := &floor{start: start, bridge: br.Index}
	return f, f.publishing()
}

// publishing makes a map from host ports to containers, and the rule that looks there.
func (f *floor) publishing() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "floor"})
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	f.ports = &nftables.Set{Table: table, Name: "ports", IsMap: true, KeyType: nftables.TypeInetService, DataType: nftables.TypeIPAddr}
	if err := c.AddSet(f.ports, nil); err != nil {
		return err
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: f.ports.Name, SetID: f.ports.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}})
	return c.Flush()
}

// address follows from the guest's host port, as nothing else tells guests apart.
func (f *floor) address(g *guest) net.IP {
	ip := floorGateway.To4()
	return net.IPv4(ip[0], ip[1], byte(g.port>>8), byte(g.port)).To4()
}

// host is the name of the host end.
func (f *floor) host(g *guest) string { return fmt.Sprintf("floor%d", g.port) }

// element is the guest's entry in the map.
func (f *floor) element(g *guest) []nftables.SetElement {
	return []nftables.SetElement{{Key: binary.BigEndian.AppendUint16(nil, uint16(g.port)), Val: f.address(g)}}
}

// add attaches a guest, on a thread in the node.
func (f *floor) add(g *guest) error {
	if err := exec.Command(f.start).Run(); err != nil {
		return err
	}
	ns, err := os.Open(g.netns)
	if err != nil {
		return err
	}
	defer ns.Close() // read only
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: f.host(g), MasterIndex: f.bridge, NumTxQueues: 1, NumRxQueues: 1, Flags: net.FlagUp},
		PeerName:  containerIf, PeerNamespace: netlink.NsFd(int(ns.Fd())), PeerNumTxQueues: 1, PeerNumRxQueues: 1,
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	if err := f.publish(func(c *nftables.Conn) error { return c.SetAddElements(f.ports, f.element(g)) }); err != nil {
		return err
	}
	return f.configure(inside, g)
}

// publish changes the map of host ports.
func (f *floor) publish(change func(*nftables.Conn) error) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := change(c); err != nil {
		return err
	}
	return c.Flush()
}

// configure sets up what is inside the guest.
func (f *floor) configure(inside *netlink.Handle, g *guest) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}} // LOOPBACK_IFINDEX in linux/net/flow.h
	if err := inside.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := inside.LinkByName(containerIf)
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(link); err != nil {
		return err
	}
	own := net.IPNet{IP: f.address(g), Mask: net.CIDRMask(16, 32)}
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: &own}); err != nil {
		return err
	}
	if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: floorGateway}); err != nil {
		return err
	}
	g.result = &current.Result{CNIVersion: "1.0.0", IPs: []*current.IPConfig{{Address: own, Gateway: floorGateway}}}
	return nil
}

// del detaches a guest, on a thread in the node.
func (f *floor) del(g *guest) error {
	if err := exec.Command(f.start).Run(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(f.host(g))
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return err
	}
	return f.publish(func(c *nftables.Conn) error { return c.SetDeleteElements(f.ports, f.element(g)) })
}
