package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// floor is the least work that any CNI plugin written in Go has to do. It has two parts: the
// kernel's work for a container with a host port, and one start of a program that does nothing.
// This benchmark does the first part in its own process, which already has all information about
// the node (the simulated host). The process need not look up, lock, check, store or print
// anything.
//
// The floor uses the same settings as bridgeveth to avoid work for the containers that are already
// attached: containers have no generated IPv6 addresses, the bridge does not snoop multicast, and
// each container reports its IPv6 groups once.
type floor struct {
	start  string // the program that does nothing
	dual   bool   // with IPv6
	node   netns.NsHandle
	bridge int // index
	ports  *nftables.Set
}

var floorGateway, floorGateway6 = net.IPv4(10, 88, 0, 1), net.ParseIP("fd88::1")

// newFloor makes the bridge, the nftables map of host ports and the FORWARD rules for the floor
// (the least work of any plugin). The calling thread must be in the namespaces of the node (the
// simulated host).
func newFloor(start string, dual bool, n *node) (*floor, error) {
	snooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("make the floor's bridge: %w", err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return nil, err
	}
	gateways := []*net.IPNet{{IP: floorGateway, Mask: net.CIDRMask(16, 32)}}
	if dual {
		gateways = append(gateways, &net.IPNet{IP: floorGateway6, Mask: net.CIDRMask(64, 128)})
	}
	for _, g := range gateways {
		if err := netlink.AddrAdd(br, &netlink.Addr{IPNet: g, Flags: unix.IFA_F_NODAD}); err != nil {
			return nil, err
		}
	}
	for _, rule := range []string{"-i", "-o"} {
		if out, err := exec.Command("iptables", "-w", "-I", "FORWARD", rule, bridgeName, "-j", "ACCEPT").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("iptables -I FORWARD: %w: %s", err, out)
		}
	}
	f := &floor{start: start, dual: dual, node: netns.NsHandle(n.net.Fd()), bridge: br.Index}
	return f, f.publishing()
}

// publishing makes the nftables map from host ports to containers, and the rule that uses this map.
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

// address returns the container's IPv4 address. It is computed from the container's host port,
// which is different for each container.
func (f *floor) address(g *guest) net.IP {
	ip := floorGateway.To4()
	return net.IPv4(ip[0], ip[1], byte(g.port>>8), byte(g.port)).To4()
}

// address6 returns the container's IPv6 address in a network. The network is given by its first
// address, such as fe80::.
func (f *floor) address6(of string, g *guest) *net.IPNet {
	ip := net.ParseIP(of)
	binary.BigEndian.PutUint16(ip[14:], uint16(g.port))
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(64, 128)}
}

// host returns the name of the host end of the container's veth pair.
func (f *floor) host(g *guest) string { return fmt.Sprintf("floor%d", g.port) }

// element returns the container's element in the nftables map of host ports.
func (f *floor) element(g *guest) []nftables.SetElement {
	return []nftables.SetElement{{Key: binary.BigEndian.AppendUint16(nil, uint16(g.port)), Val: f.address(g)}}
}

// add attaches a container. The calling thread must be in the namespaces of the node (the simulated
// host).
func (f *floor) add(g *guest) error {
	if err := f.launch(); err != nil {
		return err
	}
	ns, err := os.Open(g.netns)
	if err != nil {
		return err
	}
	defer ns.Close() // nothing was written
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: f.host(g), MasterIndex: f.bridge, NumTxQueues: 1, NumRxQueues: 1},
		PeerName:  containerIf, PeerNamespace: netlink.NsFd(int(ns.Fd())), PeerNumTxQueues: 1, PeerNumRxQueues: 1,
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	if err := f.publish(func(c *nftables.Conn) error { return c.SetAddElements(f.ports, f.element(g)) }); err != nil {
		return err
	}
	if err := netlink.LinkSetIP6AddrGenMode(pair, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		return err
	}
	if err := f.configure(inside, netns.NsHandle(ns.Fd()), g); err != nil {
		return err
	}
	return netlink.LinkSetUp(pair)
}

// launch starts the program that does nothing.
func (f *floor) launch() error { return exec.Command(f.start).Run() }

// publish changes the elements of the nftables map of host ports.
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

// configure sets up the container's interfaces. inside is a netlink socket in the container's
// network namespace ns.
func (f *floor) configure(inside *netlink.Handle, ns netns.NsHandle, g *guest) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}} // LOOPBACK_IFINDEX in linux/net/flow.h
	if err := inside.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := inside.LinkByName(containerIf)
	if err != nil {
		return err
	}
	if err := inside.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		return err
	}
	if err := inside.LinkSetUp(link); err != nil {
		return err
	}
	if f.dual {
		if err := f.configure6(inside, link, ns, g); err != nil {
			return err
		}
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

// configure6 adds IPv6 addresses and a route to the container's interface.
func (f *floor) configure6(inside *netlink.Handle, link netlink.Link, ns netns.NsHandle, g *guest) error {
	if err := netns.Set(ns); err != nil {
		return err
	}
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+containerIf+"/mldv2_unsolicited_report_interval", []byte("3600000"), 0)
	if err := errors.Join(err, netns.Set(f.node)); err != nil {
		return err
	}
	for _, own := range []*net.IPNet{f.address6("fe80::", g), f.address6("fd88::", g)} {
		if err := inside.AddrAdd(link, &netlink.Addr{IPNet: own, Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: floorGateway6})
}

// del detaches a container. The calling thread must be in the namespaces of the node (the simulated
// host).
func (f *floor) del(g *guest) error {
	if err := f.launch(); err != nil {
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
