// Package firewalld has the hidden command "bvctl firewalld".
package firewalld

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/firewalld"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// New returns "bvctl firewalld". The plugins run this command to ask firewalld, because
// they do not link a D-Bus library (see askFirewalld in pkg/setup/internal/forward). The command
// prints one word on each line.
func New(*inventory.Inventory) *cobra.Command {
	group := &cobra.Command{Use: "firewalld", Short: "Talk to firewalld, for the plugins", Hidden: true}
	for _, q := range []struct {
		use, short string
		args       int
		ask        func(c *firewalld.Client, args []string) (answer []string, err error)
	}{
		{"zone LINK", "Print the zone of a link, if any", 1, func(c *firewalld.Client, args []string) ([]string, error) {
			zone, err := c.ZoneOf(args[0])
			return []string{zone}, err
		}},
		{"links", "List the links in our zone", 0, func(c *firewalld.Client, _ []string) ([]string, error) { return c.Links() }},
		{"bind LINK", "Put a link into our zone", 1, func(c *firewalld.Client, args []string) ([]string, error) { return nil, c.Bind(args[0]) }},
		{"release LINK", "Take a link out of our zone", 1, func(c *firewalld.Client, args []string) ([]string, error) { return nil, c.Release(args[0]) }},
		{"strict", "Print whether firewalld drops packets to our host ports", 0, func(c *firewalld.Client, _ []string) ([]string, error) {
			strict, err := c.Strict()
			return []string{strconv.FormatBool(strict)}, err
		}},
	} {
		group.AddCommand(&cobra.Command{Use: q.use, Short: q.short, Args: cobra.ExactArgs(q.args), RunE: func(cmd *cobra.Command, args []string) error {
			c, err := firewalld.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := q.ask(c, args)
			for _, word := range answer {
				fmt.Fprintln(cmd.OutOrStdout(), word)
			}
			return err
		}})
	}
	return group
}
