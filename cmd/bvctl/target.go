package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// has says whether an end has an address of a family.
func has(e *doctor.End, is4 bool) bool {
	_, ok := e.Address(is4)
	return ok
}

// find looks a container up; nil is none.
func (x *examination) find(name string) (found *doctor.End, err error) {
	for _, like := range []likeness{exactly, perhaps} {
		var names []string
		for i, c := range x.all {
			if c.goesBy(name) == like {
				found = x.ends[i]
				names = append(names, c.name()+" "+c.Interface)
			}
		}
		if len(names) > 1 {
			return nil, fmt.Errorf("%q may be any of %s; be more precise, or name its address", name, strings.Join(names, ", "))
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, nil
}

// target is a container, or an address.
func (x *examination) target(name string) (*doctor.End, error) {
	b, err := x.find(name)
	if b != nil || err != nil {
		return b, err
	}
	address, err := netip.ParseAddr(name)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a container of bridgeveth's nor an address", name)
	}
	address = address.Unmap()
	return &doctor.End{Name: address.String(), Addresses: []netip.Prefix{netip.PrefixFrom(address, address.BitLen())}}, nil
}

// nearby are the gateways of a container, and the next container on its bridge.
func (x *examination) nearby(a *doctor.End) (list []*doctor.End) {
	if a.Bridge == "" {
		return nil
	}
	gateways, err := setup.Addresses(x.Host.Namespace, a.Bridge)
	if err != nil {
		complain(err)
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
