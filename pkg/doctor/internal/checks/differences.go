package checks

import (
	"net/netip"
	"slices"
	"strings"
)

// AddDifferences adds what differs at an end from the result of ADD, without the lines in said, which
// other stations have said. It reports whether it added any, and adds their lines to said.
func (p *Path) AddDifferences(e *End, said map[string]bool) (any bool) {
	station := "changed since ADD (" + e.Name + ")"
	host, container := e.differences()
	for _, line := range host {
		if !said[line] {
			p.Bad(station, "bvctl repair", "%s", line)
			said[line], any = true, true
		}
	}
	for _, line := range container {
		if !said[line] {
			p.Advise(station, "undo the change, or delete the container and create it again", "%s", line)
			said[line], any = true, true
		}
	}
	return any
}

// HostDiffers reports whether anything on the host differs from the result of ADD.
func (e *End) HostDiffers() bool {
	host, _ := e.differences()
	return len(host) > 0
}

// LacksForwardRules reports whether the rules that ADD made in FORWARD for the bridge are missing.
func (e *End) LacksForwardRules() bool {
	host, _ := e.differences()
	return anyHasPrefix(host, "rules of bridge "+e.Bridge+" ")
}

// lacksGateway reports whether the bridge does not have the gateway address that ADD gave it.
func (e *End) lacksGateway(a netip.Addr) bool {
	host, _ := e.differences()
	return anyHasPrefix(host, "address "+a.String()+"/")
}

// lacksRoute reports whether the container does not have a route that ADD gave it, as setup.Route prints
// it.
func (e *End) lacksRoute(route string) bool {
	_, container := e.differences()
	return anyHasPrefix(container, "route "+route)
}

// differences returns the lines of Verify.
func (e *End) differences() (host, container []string) {
	if e.Verify != nil && !e.verified {
		host, container := e.Verify()
		e.host, e.container, e.verified = lines(host), lines(container), true
	}
	return e.host, e.container
}

func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func anyHasPrefix(lines []string, prefix string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, prefix) })
}
