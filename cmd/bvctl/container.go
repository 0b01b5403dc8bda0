package main

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// container is an attachment with all that is known of it: by the kernel, by libcni's
// record and by its lease.
type container struct {
	setup.Attachment
	pod       string
	namespace string // its path; "" if nobody knows
	port      setup.FoundPort
	bridge    string // that it belongs on
	addresses []netip.Prefix
	routes    []setup.Route               // that it was given, of the main table
	gateways  []netip.Addr                // of its leases
	since     time.Time                   // its lease began
	drift     func() (host, inside error) // what differs from what ADD has made; nil without a record
}

// name is what a person calls it: its pod, or its ID.
func (c *container) name() string { return cmp.Or(c.pod, c.Container) }

// likeness is how well a container goes by a name.
type likeness int

const (
	another likeness = iota
	perhaps          // it begins so, or is called so in whichever namespace of Kubernetes
	exactly
)

// goesBy says whether a person may have meant the container: by its ID or the beginning
// of it, its pod, its network namespace by whatever path, or an address.
func (c *container) goesBy(name string) likeness {
	a, err := netip.ParseAddr(name)
	switch {
	case name == "":
	case c.Container == name, c.pod == name, sameFile(c.namespace, name),
		err == nil && slices.ContainsFunc(c.addresses, func(p netip.Prefix) bool { return p.Addr() == a.Unmap() }):
		return exactly
	case strings.HasPrefix(c.Container, name), strings.HasSuffix(c.pod, "/"+name):
		return perhaps
	}
	return another
}

// sameFile says whether two paths lead to the same file, or are the same where there is
// none.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	second, err2 := os.Stat(b)
	return a == b || strings.Contains(b, "/") && err == nil && err2 == nil && os.SameFile(first, second)
}

// containers lists those of bridgeveth's: with a port on the host, or with a record of one
// that is gone.
func (h *host) containers(ns *setup.Host) (list []*container, err error) {
	ports, err := ns.Ports()
	if err != nil {
		return nil, err
	}
	byKey := map[string]*container{}
	for _, p := range ports {
		c := &container{Attachment: p.Attachment, port: p, bridge: p.Bridge}
		byKey[p.Key] = c
		list = append(list, c)
	}
	records, err := h.records()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		call, err := r.attached()
		if err != nil {
			complain(err)
		}
		if call == nil {
			continue
		}
		c := byKey[r.attachment().Port()]
		if c == nil {
			c = &container{port: setup.FoundPort{Name: r.attachment().Port()}}
			byKey[c.port.Name] = c
			list = append(list, c)
		}
		c.recorded(r, call)
	}
	networks := h.networks()
	err = h.withStores(networks, func(s *ipam.Store) error {
		return filter{}.each(s, func(l ipam.Lease) {
			if c := byKey[attachmentOf(l).Port()]; c != nil && l.Until.IsZero() {
				c.leased(l)
			}
		})
	})
	for _, c := range list {
		if c.drift == nil {
			c.bridge = c.bridgeByConfiguration(ns, networks)
		}
	}
	slices.SortFunc(list, func(a, b *container) int {
		return cmp.Or(strings.Compare(a.bridge, b.bridge), strings.Compare(a.Network, b.Network), strings.Compare(a.name(), b.name()), strings.Compare(a.Interface, b.Interface))
	})
	return list, err
}

// recorded adds what libcni's record of a container says, and the call that has attached it.
func (c *container) recorded(r record, call *skel.CmdArgs) {
	c.Attachment, c.pod, c.namespace = r.attachment(), r.pod(), r.Namespace
	c.drift = func() (host, inside error) { return r.verify(call) }
	c.addresses, c.routes = r.given()
	var conf struct {
		Bridge string `json:"bridge"`
	}
	if json.Unmarshal(call.StdinData, &conf) == nil {
		c.bridge = cmp.Or(conf.Bridge, setup.DefaultBridge)
	}
}

// leased adds what one of a container's leases says.
func (c *container) leased(l ipam.Lease) {
	c.since = l.Time
	c.namespace = cmp.Or(c.namespace, l.Namespace.Path)
	c.Attachment = attachmentOf(l)
	if !slices.Contains(c.addresses, l.Address) && !l.Address.IsSingleIP() {
		c.addresses = append(c.addresses, l.Address)
	}
	if l.Gateway.IsValid() {
		c.gateways = append(c.gateways, l.Gateway)
	}
}

// bridgeByConfiguration returns the bridge that a container without a record belongs on: that of its
// network's configuration, if its port is on no bridge. A port on another bridge may have been made
// before the configuration was changed. It has left its own bridge only if that one was renamed, or
// has the container's gateway, and the other one does not.
func (c *container) bridgeByConfiguration(ns *setup.Host, networks []network) string {
	i := slices.IndexFunc(networks, func(n network) bool {
		return n.Name == c.Network && (n.Type == bridgeveth.Name || n.Type == bridgeveth.Reference)
	})
	if i < 0 {
		return c.bridge
	}
	configured := cmp.Or(networks[i].Bridge, setup.DefaultBridge)
	if c.bridge == "" || c.bridge == configured {
		return configured
	}
	renamed, err := ns.RenamedTo(configured)
	if err != nil {
		complain(err)
	}
	if renamed == c.bridge || c.hasGateway(ns, configured) && !c.hasGateway(ns, c.bridge) {
		return configured
	}
	return c.bridge
}

// hasGateway reports whether a bridge has a gateway of the container.
func (c *container) hasGateway(ns *setup.Host, bridge string) bool {
	addresses, err := setup.Addresses(ns.Namespace, bridge)
	if err != nil {
		complain(err)
	}
	return slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return slices.Contains(c.gateways, p.Addr()) })
}

// given are the addresses of the result, and its routes of the main table. One without a
// gateway of its own goes by that of the first address of its family (CNI specification,
// "routes").
func (r record) given() (addresses []netip.Prefix, routes []setup.Route) {
	var raw map[string]any
	if json.Unmarshal(r.Result, &raw) != nil {
		return nil, nil
	}
	result, err := plugin.ParseResult(raw, "")
	if err != nil {
		return nil, nil
	}
	gateways := map[bool]netip.Addr{} // by "is IPv4"
	for _, ip := range result.IPs {
		address := plugin.Prefix(ip.Address)
		addresses = append(addresses, address)
		is4 := address.Addr().Is4()
		gateways[is4] = cmp.Or(gateways[is4], plugin.Addr(ip.Gateway))
	}
	for _, route := range result.Routes {
		if dst := plugin.Prefix(route.Dst); route.Table == nil {
			routes = append(routes, setup.Route{Destination: dst, Gateway: cmp.Or(plugin.Addr(route.GW), gateways[dst.Addr().Is4()])})
		}
	}
	return addresses, routes
}
