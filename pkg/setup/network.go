package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultBridge is the bridge of a network that names none: that of the reference
// plugin, so that configurations carry over.
const DefaultBridge = "cni0"

// Network is what the containers on one bridge share. All of it is made once,
// and is the same size however many containers there are.
type Network struct {
	Bridge        string
	VLANs         VLANs
	MTU           int            // bytes, of a bridge that is made; 0 is the kernel's default
	IPv4, IPv6    bool           // the families that its packets belong to
	Gateways      []netip.Prefix // the bridge's own addresses; forwarding is on for their families
	OnLink        []netip.Prefix // addresses of containers whose subnet has no gateway in it: the host gets a route to the subnet
	Conflict      Conflict       // what becomes of other addresses of the bridge
	Promiscuous   bool           // the bridge takes in all frames; a bridge that stays goes on doing so
	Forward       Forward
	ForwardChains []Chain        // of others, that are to accept its packets besides
	Mark          uint32         // bits that are set in the mark of its packets before others filter them
	Masquerade    []netip.Prefix // subnets whose packets get the host's address where they leave
	MasqueradeNot []netip.Prefix // destinations to which they do not
	HostPorts     []netip.Prefix // subnets with containers that have host ports
	Ingress       Ingress
	AnswersOnly   bool // from beyond the host only replies come in, and what goes to published ports
	Guarded       bool // it has ports that send under certain addresses only
}

// Missing lists what the network needs and the namespace lacks, without changing
// anything.
func (n *Namespace) Missing(net *Network) (what []string, err error) {
	lacks, err := n.lacks(net)
	for _, l := range lacks {
		what = append(what, l.what)
	}
	return what, err
}

// CheckNetwork says whether a port could be attached to the network, as far as can be
// told without trying: ErrNotBridge, ErrNoVLANs, ErrTaken, ErrAddressConflict,
// ErrNoIPTables, ErrNoFirewalld, ErrStrictForwardPorts, ErrNoChain, ErrBridgeFull, or
// unix.EROFS of a sysctl. It changes nothing.
func (n *Namespace) CheckNetwork(net *Network) error {
	lacks, err := n.lacks(net)
	if err != nil {
		return err
	}
	for _, l := range lacks {
		if key, is := l.sysctl(); is && n.fixed(key) {
			return fmt.Errorf("%s: missing: %w; have whoever mounts /proc/sys set it, or mount it writable", l.what, unix.EROFS)
		}
	}
	ports := map[int]bool{}
	if err := n.eachPort(net.Bridge, func(p link) bool { ports[p.index] = true; return true }); err != nil {
		return err
	}
	if len(ports) >= maxPorts {
		return ErrBridgeFull
	}
	return nil
}

// lack is something that a network needs and that is not there.
type lack struct {
	what  string
	mend  func() error
	newer bool // builds whose ports have formerMAC did without it
}

// aSysctl is how what is lacking begins where it is a sysctl: "sysctl net/KEY=VALUE".
const aSysctl = "sysctl net/"

// sysctl is the key that is to be set.
func (l lack) sysctl() (key string, is bool) {
	if key, is = strings.CutPrefix(l.what, aSysctl); is {
		key, _, _ = strings.Cut(key, "=")
	}
	return key, is
}

// mend makes up for all that is missing, in order.
func mend(lacks []lack) error {
	for _, l := range lacks {
		if err := l.mend(); err != nil {
			return err
		}
	}
	return nil
}

// missing is an error that names what is lacking, nil if nothing is.
func missing(lacks []lack) error {
	var wrong []error
	for _, l := range lacks {
		wrong = append(wrong, fmt.Errorf("%s: missing", l.what))
	}
	return errors.Join(wrong...)
}

// lacks compares the namespace with the network, without changing anything. ADD
// mends what it finds, CHECK reports it. What it finds comes in an order in
// which it can be mended.
func (n *Namespace) lacks(net *Network) (lacks []lack, err error) {
	links, err := n.linksOf(net)
	if err != nil {
		return nil, err
	}
	for _, look := range []func() ([]lack, error){
		func() ([]lack, error) { return n.bridgeLacks(net, links) },
		func() ([]lack, error) { return n.routerLacks(net, links), nil },
		func() ([]lack, error) { return n.forwardingLacks(net, links[len(links)-1]) },
		func() ([]lack, error) { return n.filterLacks(net) },
		func() ([]lack, error) { return n.tableLacks(net) },
		func() ([]lack, error) { return n.localnetLacks(net, links) },
	} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, found...)
	}
	return lacks, nil
}

// linksOf reads the links of net.links, each the zero link where there is none.
func (n *Namespace) linksOf(net *Network) (links []link, err error) {
	for _, name := range net.links() {
		l, err := n.link(name)
		if err != nil && !absent(err) {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// bridgeLacks looks for the bridge, the first of the links, for what it needs for VLANs, and
// for the addresses of the last, by which the network is routed.
func (n *Namespace) bridgeLacks(net *Network, links []link) (lacks []lack, err error) {
	br, routed := links[0], links[len(links)-1]
	ensure := func() error { return n.EnsureBridge(net.Bridge, net.MTU) }
	switch {
	case br.index == 0:
		lacks = append(lacks, lack{what: "bridge " + net.Bridge, mend: ensure})
	case br.mustBridge() != nil:
		return nil, br.mustBridge()
	case !br.up:
		lacks = append(lacks, lack{what: "state up of bridge " + net.Bridge, mend: ensure})
	}
	if br.lostMAC() {
		lacks = append(lacks, lack{what: "MAC address of bridge " + net.Bridge, mend: func() error {
			var b batch
			b.assignMAC(br, randomMAC())
			return n.send(b)
		}})
	}
	if net.Promiscuous && !br.promiscuous {
		lacks = append(lacks, lack{what: "promiscuous mode of bridge " + net.Bridge, mend: func() error { return n.setPromiscuous(net.Bridge) }})
	}
	vlan, err := n.vlanLacks(net, br, routed)
	if err != nil {
		return nil, err
	}
	lacks = append(lacks, vlan...)
	gateways, err := n.gatewayLacks(net, routed)
	if err != nil {
		return nil, err
	}
	routes, err := n.onLinkLacks(net, routed)
	return slices.Concat(lacks, gateways, routes), err
}

// gatewayLacks compares the network's gateways with the addresses of the link that it is
// routed by, the bridge l or a VLAN link, and refuses one that cannot be set before
// anything is.
func (n *Namespace) gatewayLacks(net *Network, l link) (lacks []lack, err error) {
	if len(net.Gateways) == 0 {
		return nil, nil
	}
	name := net.RoutedBy()
	var present, own []netip.Prefix
	if l.index != 0 {
		if present, own, err = n.addressesOf(l); err != nil {
			return nil, err
		}
	}
	for _, g := range net.Gateways {
		if hasGateway(present, g) {
			continue
		}
		policy := net.Conflict
		if other, found := findConflict(g, present, net.Gateways); found && policy == ConflictError {
			// One of ours that no container needs is what a killed process has left.
			used, err := n.inUse(net.Bridge)
			if err != nil {
				return nil, err
			}
			if used && slices.Contains(own, other) {
				return nil, rangeConflict(name, g, other)
			}
			if used || !slices.Contains(own, other) {
				return nil, addressConflict(name, g, other)
			}
			policy = ConflictReplace
		}
		lacks = append(lacks, lack{
			what: fmt.Sprintf("address %s of bridge %s", g, name),
			mend: func() error { return n.EnsureGateway(name, g, net.Gateways, policy) },
		})
	}
	return lacks, nil
}

// filterLacks looks for what gets packets past chains that deny.
func (n *Namespace) filterLacks(net *Network) (lacks []lack, err error) {
	var looks []func(*Network) ([]lack, error)
	switch net.Forward {
	case ForwardAuto:
		looks = append(looks, n.iptablesLacks, n.firewalldLacks)
	case ForwardIPTables:
		looks = append(looks, n.iptablesLacks)
	case ForwardFirewalld:
		looks = append(looks, n.firewalldLacks)
	case ForwardSysctl:
		looks = append(looks, n.sysctlLacks)
	}
	for _, look := range append(looks, n.chainLacks) {
		found, err := look(net)
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, found...)
	}
	return lacks, nil
}

func (n *Namespace) iptablesLacks(net *Network) (lacks []lack, err error) {
	for _, name := range net.links() {
		found, err := n.forwardLacks(name, net.families(), net.Forward == ForwardIPTables)
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, found...)
	}
	return lacks, nil
}

func (n *Namespace) sysctlLacks(net *Network) (lacks []lack, err error) {
	for family, key := range map[int]string{unix.AF_INET: sysctlBridge4, unix.AF_INET6: sysctlBridge6} {
		value, err := n.sysctl(key)
		if errors.Is(err, os.ErrNotExist) {
			continue // no br_netfilter: iptables sees no bridged packet
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl net/%s: %w", key, err)
		}
		if value != "0" && net.has(family) {
			lacks = append(lacks, lack{what: aSysctl + key + "=0", mend: func() error { return n.setSysctl(key, "0") }})
		}
	}
	return lacks, nil
}

func (net *Network) has(family int) bool {
	return family == unix.AF_INET && net.IPv4 || family == unix.AF_INET6 && net.IPv6
}

func (net *Network) families() (families []int) {
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		if net.has(f) {
			families = append(families, f)
		}
	}
	return families
}
