package cli

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// matchKind is how well a container matches a name.
type matchKind int

const (
	noMatch      matchKind = iota
	partialMatch           // the name is the beginning of the ID, or the pod's name without its Kubernetes namespace
	exactMatch
)

// Find returns the index of the container that matches a name, or -1. It prefers an exact match.
func Find(all []*inventory.Container, name string) (index int, err error) {
	index = -1
	for _, kind := range []matchKind{exactMatch, partialMatch} {
		var names []string
		for i, c := range all {
			if matches(c, name) == kind {
				index = i
				names = append(names, c.DisplayName()+" "+c.Interface)
			}
		}
		if len(names) > 1 {
			return -1, fmt.Errorf("%q matches %s; write more of the name, or give the address", name, strings.Join(names, ", "))
		}
		if index >= 0 {
			return index, nil
		}
	}
	return -1, nil
}

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
