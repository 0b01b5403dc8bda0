// Package inspect has the command "bvctl inspect".
package inspect

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Attachment is one attachment in the output of "bvctl inspect".
type Attachment struct {
	Bridge    string         `json:"bridge"`
	Network   string         `json:"network"`
	Container string         `json:"container"`
	Pod       string         `json:"pod,omitempty"`
	Interface string         `json:"interface"`
	Namespace string         `json:"namespace,omitempty"`
	Port      string         `json:"port"`
	State     string         `json:"state"` // Forwarding, or one of the constants port… below
	Addresses []netip.Prefix `json:"addresses"`
	HostPorts []string       `json:"hostPorts,omitempty"` // such as "tcp 192.0.2.1:8080"
	Bandwidth *bandwidth     `json:"bandwidth,omitempty"`
	Since     *time.Time     `json:"since,omitempty"` // when the address was leased
}

// bandwidth holds the limits of a container, in bits per second. 0 means no limit.
type bandwidth struct {
	Ingress uint64 `json:"ingressRate"`
	Egress  uint64 `json:"egressRate"`
}

// Forwarding is the state of a bridge port that forwards packets.
const Forwarding = "forwarding"

const (
	portDown       = "down"
	portBlocked    = "not forwarding"
	portUnplugged  = "off its bridge"
	portMissing    = "missing"
	portUnfinished = "unfinished" // the ADD that made the port was killed
)

// States contains all states of attachments.
var States = []string{Forwarding, portDown, portBlocked, portUnplugged, portMissing, portUnfinished}

// New returns "bvctl inspect".
func New(inv *inventory.Inventory) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "inspect", Short: "List every container with its port, addresses, host ports and limits", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(output, "table", "json"); err != nil {
				return err
			}
			ns, err := setup.CurrentHost()
			if err != nil {
				return err
			}
			defer ns.Close()
			list, err := Attachments(inv, ns)
			if output == "json" {
				return errors.Join(err, cli.PrintJSON(cmd.OutOrStdout(), list))
			}
			return errors.Join(err, printAttachments(list, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cli.CompleteOutput(cmd, "table", "json")
	return cmd
}

// Attachments lists all attachments, sorted by bridge. The list is valid even if err is not nil.
func Attachments(inv *inventory.Inventory, ns *setup.Host) ([]Attachment, error) {
	all, err := inv.Containers(ns, inv.Networks())
	published, unknown := ns.HostPorts()
	list := []Attachment{}
	for _, c := range all {
		a := Attachment{
			Bridge: c.Bridge, Network: c.Network, Container: c.Container, Pod: c.Pod, Interface: c.Interface, Namespace: c.Namespace,
			Port: c.Port.Name, State: state(c), Addresses: append([]netip.Prefix{}, c.Addresses...), HostPorts: published[c.Port.Key],
		}
		if limits := c.Port.Bandwidth; limits != (setup.Bandwidth{}) {
			a.Bandwidth = &bandwidth{limits.Ingress.Rate, limits.Egress.Rate}
		}
		if !c.Since.IsZero() {
			a.Since = &c.Since
		}
		list = append(list, a)
	}
	return list, errors.Join(err, unknown)
}

// state returns the state of the container's bridge port.
func state(c *inventory.Container) string {
	switch p := c.Port; {
	case p.Key == "":
		return portMissing
	case c.Container == "":
		return portUnfinished
	case p.Bridge != c.Bridge || p.Bridge == "":
		return portUnplugged
	case !p.Up:
		return portDown
	case !p.Forwarding:
		return portBlocked
	}
	return Forwarding
}

// String returns the limits as text, such as "in 10M out 2.5M".
func (b *bandwidth) String() string {
	if b == nil {
		return "-"
	}
	var words []string
	for _, way := range []struct {
		name string
		rate uint64
	}{{"in", b.Ingress}, {"out", b.Egress}} {
		if way.rate == 0 {
			continue
		}
		rate, unit := float64(way.rate), 0
		for ; rate >= 1000 && unit < 4; unit++ {
			rate /= 1000
		}
		words = append(words, fmt.Sprintf("%s %.4g%s", way.name, rate, []string{"", "k", "M", "G", "T"}[unit]))
	}
	return strings.Join(words, " ")
}

// printAttachments prints a table of attachments.
func printAttachments(list []Attachment, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BRIDGE\tNETWORK\tCONTAINER\tPOD\tINTERFACE\tPORT\tSTATE\tADDRESSES\tHOST PORTS\tLIMITS\tSINCE")
	for _, a := range list {
		var addresses []string
		for _, p := range a.Addresses {
			addresses = append(addresses, p.String())
		}
		since := ""
		if a.Since != nil {
			since = a.Since.Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Bridge, a.Network, cli.Shorten(a.Container), cli.OrDash(a.Pod), a.Interface, a.Port, a.State,
			cli.OrDash(strings.Join(addresses, " ")), cli.OrDash(strings.Join(a.HostPorts, ", ")), a.Bandwidth, cli.OrDash(since))
	}
	return t.Flush()
}
