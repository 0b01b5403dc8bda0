package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// matchKind is how well a container matches a name.
type matchKind int

const (
	noMatch      matchKind = iota
	partialMatch           // the name is the beginning of the ID, or the pod's name without its Kubernetes namespace
	exactMatch
)

// matches reports how well a container matches a name. The name may be the container's ID or the
// beginning of the ID, its pod, a path of its network namespace, or one of its addresses.
func matches(c *inventory.Container, name string) matchKind {
	a, err := netip.ParseAddr(name)
	switch {
	case name == "":
	case c.Container == name, c.Pod == name, sameFile(c.Namespace, name),
		err == nil && slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.Unmap() }):
		return exactMatch
	case strings.HasPrefix(c.Container, name), strings.HasSuffix(c.Pod, "/"+name):
		return partialMatch
	}
	return noMatch
}

// sameFile reports whether two paths are equal, or lead to the same file.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	second, err2 := os.Stat(b)
	return a == b || strings.Contains(b, "/") && err == nil && err2 == nil && os.SameFile(first, second)
}

// has reports whether a container, or another target of packets, has an address of the given
// family.
func has(e *doctor.End, is4 bool) bool {
	_, ok := e.Address(is4)
	return ok
}

// find returns the container that matches a name, or nil. It prefers an exact match.
func (x *examination) find(name string) (found *doctor.End, err error) {
	for _, kind := range []matchKind{exactMatch, partialMatch} {
		var names []string
		for i, c := range x.all {
			if matches(c, name) == kind {
				found = x.ends[i]
				names = append(names, c.DisplayName()+" "+c.Interface)
			}
		}
		if len(names) > 1 {
			return nil, fmt.Errorf("%q matches %s; write more of the name, or give the address", name, strings.Join(names, ", "))
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, nil
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
		printError(err)
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
