package leases

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// newCheck returns "bvctl leases check".
func newCheck(inv *inventory.Inventory) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Compare leases with network namespaces, links and rules", Args: cobra.NoArgs,
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

// finding is a difference between the leases and the host. remedy is the command or action that
// fixes the difference.
type finding struct{ what, remedy string }

// checker compares leases with the host.
type checker struct {
	inv      *inventory.Inventory
	ns       *setup.Host
	ports    map[setup.Attachment]setup.FoundPort
	leases   []ipam.Lease
	findings []finding
}

// newChecker returns a checker with a list of the bridge ports on the host. The caller must close
// the field ns.
func newChecker(inv *inventory.Inventory) (*checker, error) {
	ns, err := setup.CurrentHost()
	if err != nil {
		return nil, err
	}
	ns.RememberNetworks()
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

// add adds a finding.
func (c *checker) add(remedy, format string, args ...any) {
	c.findings = append(c.findings, finding{fmt.Sprintf(format, args...), remedy})
}

// check compares leases, ports and rules, and adds a finding for each difference. It changes nothing
// on the host.
func (c *checker) check() error {
	networks := c.inv.Networks()
	restorables, err := c.inv.Restorables(c.ns, networks)
	if err != nil {
		return err
	}
	if err := c.checkLinks(networks, restorables, func(string) bool { return true }); err != nil {
		return err
	}
	c.checkRestorables(restorables)
	return nil
}

// checkLinks compares the leases of the wanted networks with network namespaces and links.
func (c *checker) checkLinks(networks []inventory.Network, restorables []inventory.Restorable, wanted func(network string) bool) error {
	err := c.inv.Stores(networks, func(s *ipam.Store) error {
		return inventory.EachLease(s, "", "", func(l ipam.Lease) {
			if wanted(l.Network) {
				c.leases = append(c.leases, l)
			}
		})
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
	maps.DeleteFunc(c.ports, func(a setup.Attachment, _ setup.FoundPort) bool { return !wanted(a.Network) })
	c.checkPorts(restorables)
	return nil
}

// CheckLinks compares the leases of the wanted networks with network namespaces and links, and prints
// the findings like "bvctl leases check". If there are any, the error is cli.ErrUnhealthy.
func CheckLinks(inv *inventory.Inventory, w io.Writer, wanted func(*inventory.Network) bool) error {
	c, err := newChecker(inv)
	if err != nil {
		return err
	}
	defer c.ns.Close()
	networks := inv.Networks()
	names := map[string]bool{}
	for i := range networks {
		names[networks[i].Name] = names[networks[i].Name] || wanted(&networks[i])
	}
	restorables, err := inv.Restorables(c.ns, networks)
	if err == nil {
		err = c.checkLinks(networks, restorables, func(name string) bool { return names[name] })
	}
	if err != nil {
		return err
	}
	return c.report(w)
}

// checkLease adds a finding if the network namespace or the link of a lease does not exist, or if
// the link does not have the leased address.
func (c *checker) checkLease(l ipam.Lease) error {
	who := fmt.Sprintf("network %s: %s is leased to container %s, interface %s", l.Network, l.Address, l.Container, l.Interface)
	_, plugged := c.ports[inventory.LeasedTo(l)]
	if l.Namespace.Gone() {
		if plugged {
			c.add("have the runtime delete the container; or run ip link delete "+inventory.LeasedTo(l).Port()+", then "+releaseCommand(l),
				"%s, but the container's network namespace %s does not exist, and its link exists", who, l.Namespace.Path)
		} else {
			c.add(releaseCommand(l)+"; or wait until the range is full: the next ADD then frees the lease",
				"%s, but the container's network namespace %s does not exist", who, l.Namespace.Path)
		}
		return nil
	}
	if l.Namespace == (ipam.Namespace{}) {
		return nil // the lease was imported from host-local, which does not record the namespace
	}
	container, err := setup.OpenNamespace(l.Namespace.Path)
	if err != nil {
		c.add("check whether the path is a network namespace: findmnt "+l.Namespace.Path, "%s, but the container's network namespace cannot be opened: %v", who, err)
		return nil
	}
	defer container.Close()
	present, err := setup.Addresses(container, l.Interface)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(present, func(p netip.Prefix) bool { return p.Addr() == l.Address.Addr() }) {
		c.add("delete the container and create it again", "%s, but the interface has the addresses %v", who, present)
	}
	return nil
}

// checkPorts adds a finding for two kinds of bridge ports. The first kind has no lease, although
// its network has leases. The second kind is down and has no record, because its ADD was killed.
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
			c.add("none needed: the next ADD or DEL of the container deletes the port", "port %s is incomplete: its ADD was killed", p.Name)
		case networks[a.Network] && !leased[a]:
			c.add("delete the container and create it again; until then, another container may get its address", "port %s of container %s, network %s: it has no lease", p.Name, a.Container, a.Network)
		}
	}
}

// checkRestorables adds a finding for each difference that "bvctl repair" would correct.
func (c *checker) checkRestorables(all []inventory.Restorable) {
	seen := map[finding]bool{}
	find := func(remedy, format string, args ...any) {
		f := finding{fmt.Sprintf(format, args...), remedy}
		if !seen[f] { // all containers of a network report the same missing parts of the network, so each part is reported once
			c.findings = append(c.findings, f)
		}
		seen[f] = true
	}
	for _, n := range all {
		network, port, err := n.Missing()
		for _, what := range network {
			find("bvctl repair, or the next ADD", "network %s: %s: missing", n.Network, what)
		}
		if port != nil {
			find("bvctl repair", "%s: %s", n.Name, strings.ReplaceAll(port.Error(), "\n", "; "))
		}
		if err != nil {
			find("have the runtime delete the container", "%s: %v", n.Name, err)
		}
	}
}

// releaseCommand returns the command that frees a lease.
func releaseCommand(l ipam.Lease) string {
	return fmt.Sprintf("bvctl leases release --network %s --address %s", l.Network, l.Address.Addr())
}

// report prints the findings. It returns cli.ErrUnhealthy if there are any.
func (c *checker) report(w io.Writer) error {
	slices.SortFunc(c.findings, func(a, b finding) int { return cmp.Compare(a.what, b.what) })
	for _, f := range c.findings {
		fmt.Fprintf(w, "%s\n  fix: %s\n", f.what, f.remedy)
	}
	if len(c.findings) > 0 {
		return cli.ErrUnhealthy
	}
	fmt.Fprintf(w, "%d leases: no problems found\n", len(c.leases))
	return nil
}
