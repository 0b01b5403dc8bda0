// Package config has the commands "bvctl config check" and "bvctl config new". keys.go has the table
// of all configuration keys.
package config

import (
	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// New returns "bvctl config".
func New(*inventory.Inventory) *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Check or write a network configuration"}
	group.AddCommand(newCheck(), newNew())
	return group
}
