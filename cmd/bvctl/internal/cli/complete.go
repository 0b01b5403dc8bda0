package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Complete returns a function that completes words in a shell: the shell calls "bvctl __complete" with
// the words so far. The function in the parameter names lists all names, and may return "". It
// returns no names if it cannot read them, for instance because the user is not root.
func Complete(names func(args []string) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		list := slices.DeleteFunc(names(args), func(name string) bool { return name == "" || !strings.HasPrefix(name, word) })
		slices.Sort(list)
		return slices.Compact(list), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteOption completes the values of an option.
func CompleteOption(cmd *cobra.Command, option string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(option, f); err != nil {
		panic(err) // the command does not have the option
	}
}

// CompleteOutput completes the value of --output.
func CompleteOutput(cmd *cobra.Command, formats ...string) {
	CompleteOption(cmd, "output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// ContainerNames returns the IDs, pods and addresses of all containers.
func ContainerNames(inv *inventory.Inventory) (names []string) {
	host, err := setup.CurrentHost()
	if err != nil {
		return nil
	}
	defer host.Close()
	quiet := *inv
	quiet.Warn = func(error) {}
	all, _ := quiet.Containers(host, quiet.Networks()) // the list is valid in spite of an error
	for _, c := range all {
		names = append(names, c.Pod)
		if c.Container != "" {
			names = append(names, Shorten(c.Container))
		}
		for _, p := range c.Addresses {
			names = append(names, p.Addr().String())
		}
	}
	return names
}
