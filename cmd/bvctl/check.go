package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// newCheck returns "bvctl leases check".
func newCheck(inv *inventory.Inventory) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Compare leases with namespaces, links and rules, and say how to mend what is wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newChecker(inv)
			if err != nil {
				return err
			}
			defer c.ns.Close()
			if err := c.check(); err != nil {
				return err
			}
			return c.report(cmd.OutOrStdout())
		},
	}
}

// finding is something that is wrong, and what mends it.
type finding struct{ what, remedy string }

// checker compares leases with the host.
type checker struct {
	inv      *inventory.Inventory
	ns       *setup.Host
	ports    map[setup.Attachment]setup.FoundPort
	leases   []ipam.Lease
	findings []finding
}

// newChecker looks at the ports there are. Its namespace is to be closed.
func newChecker(inv *inventory.Inventory) (*checker, error) {
	ns, err := setup.CurrentHost()
	if err != nil {
		return nil, err
	}
	ports, err := ns.Ports()
	if err != nil {
		ns.Close()
		return nil, err
	}
	c := &checker{inv: inv, ns: ns, ports: map[setup.Attachment]setup.FoundPort{}}
	for _, p := range ports {
		c.ports[p.Attachment] = p
	}
	return c, nil
}

// found notes that something is wrong.
func (c *checker) found(remedy, format string, args ...any) {
	c.findings = append(c.findings, finding{fmt.Sprintf(format, args...), remedy})
}

// check looks at everything, and changes nothing.
func (c *checker) check() error {
	networks := c.inv.Networks()
	err := c.inv.Stores(networks, func(s *ipam.Store) error {
		return inventory.EachLease(s, "", "", func(l ipam.Lease) { c.leases = append(c.leases, l) })
	})
	if err != nil {
		return err
	}
	for _, l := range c.leases {
		if l.Until.IsZero() {
			if err := c.checkLease(l); err != nil {
				return err
			}
		}
	}
	restorables, err := c.inv.Restorables(c.ns, networks)
	if err != nil {
		return err
	}
	c.checkPorts(restorables)
	c.checkRestorables(restorables)
	return nil
}

// checkLease compares a lease with its namespace and its link.
func (c *checker) checkLease(l ipam.Lease) error {
	who := fmt.Sprintf("network %s: %s is leased to container %s, interface %s", l.Network, l.Address, l.Container, l.Interface)
	_, plugged := c.ports[inventory.LeasedTo(l)]
	if l.Namespace.Gone() {
		if plugged {
			c.found("have the runtime remove the container; or ip link delete "+inventory.LeasedTo(l).Port()+", and then: "+releaseCommand(l),
				"%s, whose namespace %s is gone; its link is left", who, l.Namespace.Path)
		} else {
			c.found(releaseCommand(l)+"; or nothing: it is taken back when the range is full",
				"%s, whose namespace %s is gone", who, l.Namespace.Path)
		}
		return nil
	}
	if l.Namespace == (ipam.Namespace{}) {
		return nil // taken over from host-local: nothing is known of it
	}
	container, err := setup.OpenNamespace(l.Namespace.Path)
	if err != nil {
		c.found("look whether the path is still a namespace: findmnt "+l.Namespace.Path, "%s, whose namespace cannot be opened: %v", who, err)
		return nil
	}
	defer container.Close()
	present, err := setup.Addresses(container, l.Interface)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(present, func(p netip.Prefix) bool { return p.Addr() == l.Address.Addr() }) {
		c.found("remove the container and make it again: nobody else reaches it meanwhile", "%s, which does not have it: it has %v", who, present)
	}
	return nil
}

// checkPorts finds ports of networks with leases that have none themselves, and those that
// nobody has finished: what has a record was.
func (c *checker) checkPorts(restorables []inventory.Restorable) {
	recorded := map[setup.Attachment]bool{}
	for _, n := range restorables {
		recorded[n.Attachment] = true
	}
	leased, networks := map[setup.Attachment]bool{}, map[string]bool{}
	for _, l := range c.leases {
		leased[inventory.LeasedTo(l)] = true
		networks[l.Network] = true
	}
	for a, p := range c.ports {
		switch {
		case !p.Up && !recorded[a]:
			c.found("nothing: the next ADD or DEL of the container takes it away", "port %s was never finished: a process was killed", p.Name)
		case networks[a.Network] && !leased[a]:
			c.found("remove the container and make it again: its address may be given to another", "port %s of container %s, network %s: no address is leased to it", p.Name, a.Container, a.Network)
		}
	}
}

// checkRestorables compares what containers need with what the host has, as repair does.
func (c *checker) checkRestorables(all []inventory.Restorable) {
	said := map[finding]bool{}
	find := func(remedy, format string, args ...any) {
		f := finding{fmt.Sprintf(format, args...), remedy}
		if !said[f] { // what a network lacks is the same for all of its containers
			c.findings = append(c.findings, f)
		}
		said[f] = true
	}
	for _, n := range all {
		network, port, err := n.Missing()
		for _, what := range network {
			find("bvctl repair; the next ADD does it too", "network %s: %s: missing", n.Network, what)
		}
		if port != nil {
			find("bvctl repair", "%s: %s", n.Name, strings.ReplaceAll(port.Error(), "\n", "; "))
		}
		if err != nil {
			find("have the runtime remove the container", "%s: %v", n.Name, err)
		}
	}
}

// releaseCommand is what frees a lease.
func releaseCommand(l ipam.Lease) string {
	return fmt.Sprintf("bvctl leases release --network %s --address %s", l.Network, l.Address.Addr())
}

// report prints what was found.
func (c *checker) report(w io.Writer) error {
	slices.SortFunc(c.findings, func(a, b finding) int { return cmp.Compare(a.what, b.what) })
	for _, f := range c.findings {
		fmt.Fprintf(w, "%s\n  to mend it: %s\n", f.what, f.remedy)
	}
	if len(c.findings) > 0 {
		return errUnhealthy
	}
	fmt.Fprintf(w, "%d leases: all is well\n", len(c.leases))
	return nil
}
