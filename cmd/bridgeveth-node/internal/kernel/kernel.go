// Package kernel compares the state of the kernel with the state that a node needs (cluster.State),
// and corrects every difference. It changes and removes only the agent's own objects: routes of
// protocol 97, and the VXLAN device in link group 97 with its addresses and entries.
package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

// protocol is the protocol number of the agent's routes: "proto 97" in ip-route(8).
// linux/rtnetlink.h gives the number 97 to no program. The plugin itself uses 98.
const protocol = 97

// Host is a handle to the network namespace in which Open was called.
type Host struct{ nl *netlink.Handle }

// Open returns a handle to the network namespace of the calling thread.
func Open() (*Host, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Host{h}, nil
}

// Close closes the netlink socket.
func (h *Host) Close() { h.nl.Close() }

// Apply corrects every difference between the kernel and the state s, and returns a line for each
// change. It continues after errors. If there was no error, its last step adds the routes that
// Complete looks for (see applyMark).
func (h *Host) Apply(s cluster.State) (changes []string, err error) {
	changes, tunnel, tunnelErr := h.applyTunnel(s.Tunnel)
	present, err := h.routes() // read after the tunnel is restored, because a replaced device loses its routes
	if err != nil {
		return changes, errors.Join(tunnelErr, err)
	}
	more, routeErr := h.applyRoutes(s.Routes, tunnel, present)
	changes, err = append(changes, more...), errors.Join(tunnelErr, routeErr)
	if s.Tunnel == nil { // remove the tunnel after its routes were deleted or replaced
		more, removeErr := h.removeTunnel()
		changes, err = append(changes, more...), errors.Join(err, removeErr)
	}
	if err == nil {
		more, err = h.applyMark(s.Ranges, present.marks)
		changes = append(changes, more...)
	}
	return changes, err
}

// converge makes the state in present equal to the state in wanted. It calls set for each key of
// wanted whose value in present is missing or different. Then it calls remove for each key that is
// only in present. It returns a line for each change. say returns the text of the line.
func converge[K comparable, V comparable](wanted, present map[K]V, set func(K, V) error, remove func(K, V) error, say func(K, V) string) (changes []string, err error) {
	var differs, surplus []K
	for k, v := range wanted {
		if was, ok := present[k]; !ok || was != v {
			differs = append(differs, k)
		}
	}
	for k := range present {
		if _, ok := wanted[k]; !ok {
			surplus = append(surplus, k)
		}
	}
	do := func(verb string, k K, v V, change func(K, V) error) {
		what := verb + " " + say(k, v)
		if failed := change(k, v); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, failed))
			return
		}
		changes = append(changes, what)
	}
	for _, k := range inOrder(differs) {
		verb := "add"
		if _, ok := present[k]; ok {
			verb = "change"
		}
		do(verb, k, wanted[k], set)
	}
	for _, k := range inOrder(surplus) {
		do("remove", k, present[k], remove)
	}
	return changes, err
}

// inOrder sorts keys by their text.
func inOrder[K comparable](keys []K) []K {
	slices.SortFunc(keys, func(a, b K) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return keys
}

// absent returns nil if err means that the object to remove does not exist. Otherwise it returns
// err unchanged.
func absent(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
