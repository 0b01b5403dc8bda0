package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// has reports whether a container, or another target of packets, has an address of the given
// family.
func has(e *doctor.End, is4 bool) bool {
	_, ok := e.Address(is4)
	return ok
}

// find returns the container that matches a name, or nil.
func (x *examination) find(name string) (*doctor.End, error) {
	at, err := cli.Find(x.all, name)
	if at < 0 {
		return nil, err
	}
	return x.ends[at], nil
}

// target returns the container that matches the name. If no container matches, the name must be an
// address, and target returns an End with only this address.
func (x *examination) target(name string) (*doctor.End, error) {
	b, err := x.find(name)
	if b != nil || err != nil {
		return b, err
	}
	address, err := netip.ParseAddr(name)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a container of bridgeveth nor an address; list the containers with bvctl inspect", name)
	}
	address = address.Unmap()
	return &doctor.End{Name: address.String(), Addresses: []netip.Prefix{netip.PrefixFrom(address, address.BitLen())}}, nil
}

// nearby returns the gateways of a container and the next container on its bridge.
func (x *examination) nearby(a *doctor.End) (list []*doctor.End) {
	if a.Bridge == "" {
		return nil
	}
	gateways, err := setup.Addresses(x.Host.Namespace, a.Bridge)
	if err != nil {
		cli.PrintError(err)
	}
	for _, g := range gateways {
		if slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool { return p.Contains(g.Addr()) }) {
			list = append(list, &doctor.End{Name: g.Addr().String(), Addresses: []netip.Prefix{netip.PrefixFrom(g.Addr(), g.Addr().BitLen())}})
		}
	}
	at := slices.Index(x.Ends, a)
	for i := 1; i < len(x.Ends); i++ {
		if b := x.Ends[(at+i)%len(x.Ends)]; b.Bridge == a.Bridge {
			return append(list, b)
		}
	}
	return list
}
