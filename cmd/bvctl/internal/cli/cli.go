// Package cli holds what the commands of bvctl share: their outputs, errors and table cells, and
// the search for a container by one of its names.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// ErrUnhealthy makes bvctl exit with status 1 without another message. The command has already
// printed the problems.
var ErrUnhealthy = errors.New("problems found")

// SystemPath is the PATH for the commands that fix a problem, and for those of a report. It contains
// only folders of the system, because another folder may contain a CNI plugin with the name of a
// system program. The shell would then run, for example, the plugin bridge instead of bridge(8).
// This plugin prints its version and returns 0. The last folder of SystemPath is for NixOS.
const SystemPath = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin:/run/current-system/sw/bin"

// RequireRoot returns an error if bvctl does not run as root. Without root, a command would often
// see no leases, records or rules, and would report that nothing is wrong.
func RequireRoot(cmd *cobra.Command, _ []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root, because only root can read leases, rules and network namespaces; run it as root", cmd.CommandPath())
	}
	return nil
}

// PrintError prints an error after which the command continues.
func PrintError(err error) { fmt.Fprintln(Stderr, "bvctl:", err) }

// CheckOutput returns an error if the value of the option --output is not one of the given formats.
func CheckOutput(output string, formats ...string) error {
	if !slices.Contains(formats, output) {
		return fmt.Errorf("--output: %q is none of %s", output, strings.Join(formats, ", "))
	}
	return nil
}

// PrintJSON prints a value as indented JSON.
func PrintJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// Shorten returns the first 12 characters of an ID of 64 characters, as container runtimes print
// it. It returns another ID unchanged, and "-" for an empty ID.
func Shorten(id string) string {
	if len(id) == 64 {
		return id[:12]
	}
	return OrDash(id)
}

// OrDash returns the text, or "-" instead of an empty text, for a column of a table.
func OrDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
