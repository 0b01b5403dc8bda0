package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// report is the output of "bvctl config check".
type report struct {
	File     string         `json:"file"`
	Network  string         `json:"network"`
	Version  string         `json:"cniVersion"`
	Errors   []string       `json:"errors"`
	Warnings []string       `json:"warnings"`
	Plugins  []pluginReport `json:"plugins"` // empty if there are errors
}

// pluginReport is the effective configuration of one plugin, or of an IPAM plugin.
type pluginReport struct {
	Name string   `json:"name"` // such as "plugins[0]: bridgeveth"
	Keys []value  `json:"keys"`
	Sets []string `json:"sets,omitempty"` // the ranges of each set, for ipam-simple
}

// value is the value of a key.
type value struct {
	key
	Value string `json:"value,omitempty"` // JSON; "" means the default
	By    string `json:"by,omitempty"`    // the key that sets this key
}

// newCheck returns "bvctl config check".
func newCheck() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Check a network configuration, and explain its keys", Args: cobra.ExactArgs(1),
		Long: `Check a network configuration without attaching a container. FILE has a plugin list or a single
plugin. check prints the mistakes for which ADD would refuse the configuration, and warnings
about keys without effect. If there are no mistakes, check prints the value of each key, and what
the key does.

Plugins with the names of reference plugins are checked as bridgeveth reads them. Other plugins
are not checked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckOutput(output, "text", "json"); err != nil {
				return err
			}
			r, err := check(args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				err = cli.PrintJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout())
			}
			if err == nil && len(r.Errors) > 0 {
				err = cli.ErrUnhealthy
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cli.CompleteOutput(cmd, "text", "json")
	cmd.ValidArgsFunction = cobra.FixedCompletions([]string{"conf", "conflist", "json"}, cobra.ShellCompDirectiveFilterFileExt)
	return cmd
}

// check checks a file. It returns an error only if it cannot read the file.
func check(path string) (*report, error) {
	r := &report{File: path, Errors: []string{}, Warnings: []string{}, Plugins: []pluginReport{}}
	file, err := inventory.ReadFile(path)
	if unreadable := (*fs.PathError)(nil); errors.As(err, &unreadable) {
		return nil, err
	}
	r.warnList(file.Text)
	if json.Valid(file.Text) {
		r.warnRepeated(json.NewDecoder(bytes.NewReader(file.Text)), "")
	}
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
		return r, nil
	}
	r.Network, r.Version = file.Name, file.Version
	for i, p := range file.Plugins {
		name := fmt.Sprintf("plugins[%d] (%s)", i, p.Type)
		sets, err := p.Validate()
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				r.Errors = append(r.Errors, name+": "+strings.TrimSuffix(line, "\n"))
			}
			continue
		}
		r.addPlugin(name, p, sets)
	}
	if len(r.Errors) > 0 {
		r.Plugins = []pluginReport{}
	}
	return r, nil
}

// addPlugin adds the effective configuration of a plugin, and warnings about its keys.
func (r *report) addPlugin(name string, p inventory.Plugin, sets []ipam.Set) {
	keys, known := keysOf[p.Type]
	if !known {
		r.warn(name, "not checked, because it is no plugin of bridgeveth")
		return
	}
	set := readSettings(p.Text)
	r.warnUnknown(name, p.Text, "", append(names(keys), ofRuntimes...))
	r.warnUnknown(name, set["dns"], "dns.", names(dnsKeys))
	r.warnUnknown(name, set["vlanTrunk"], "vlanTrunk", names(trunkKeys))
	var wanted map[string]bool
	if json.Unmarshal(set["capabilities"], &wanted) == nil {
		for _, c := range sortedKeys(wanted) {
			if !slices.Contains(capabilities[p.Type], c) {
				r.warn(name, "capabilities.%s: %s ignores this capability%s", c, p.Type, similar(c, capabilities[p.Type]))
			}
		}
	}
	if !p.First { // ADD refuses these keys behind another interface plugin
		keys = slices.DeleteFunc(slices.Clone(keys), func(k key) bool { return k.Name == "macspoofchk" || k.Name == "ipspoofchk" })
	}
	r.Plugins = append(r.Plugins, pluginReport{Name: name, Keys: effective(keys, set)})
	if p.IPAM == "" {
		return
	}
	name += ": ipam (" + p.IPAM + ")"
	if keys, known = keysOf[p.IPAM]; !known {
		r.warn(name, "not checked, because it is no plugin of bridgeveth")
		return
	}
	below := readSettings(set["ipam"])
	r.warnUnknown(name, set["ipam"], "", names(keys))
	r.warnUnknown(name, below["ranges"], "ranges", names(rangeKeys))
	if below["ranges"] != nil && below["subnet"] == nil {
		keys = keys[:len(keys)-len(rangeKeys)]
	}
	of := pluginReport{Name: name, Keys: effective(keys, below)}
	for _, s := range sets {
		of.Sets = append(of.Sets, describe(s))
	}
	r.Plugins = append(r.Plugins, of)
}

// describe returns the ranges of a set with their gateways.
func describe(s ipam.Set) string {
	var ranges []string
	for _, a := range s {
		text := a.String()
		if a.Gateway.IsValid() {
			text += ", gateway " + a.Gateway.String()
		}
		if a.OnRequest {
			text += ", only on request"
		}
		ranges = append(ranges, text)
	}
	return strings.Join(ranges, "; ")
}

// print prints the report as text.
func (r *report) print(w io.Writer) error {
	for _, text := range r.Errors {
		fmt.Fprintf(w, "%s: %s\n", r.File, text)
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "%s: warning: %s\n", r.File, text)
	}
	if len(r.Errors) > 0 {
		return nil
	}
	fmt.Fprintf(w, "%s: no mistakes found\n\nnetwork %s, CNI version %s\n", r.File, r.Network, r.Version)
	for _, p := range r.Plugins {
		fmt.Fprintf(w, "\n%s\n", p.Name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  KEY\tVALUE\tMEANING")
		for _, v := range p.Keys {
			shown := v.Value
			if v.Name == "ipam" && shown != "" {
				continue // the IPAM plugin has a table of its own
			}
			switch {
			case v.By != "":
				shown += " (set by " + v.By + ")"
			case shown == "":
				shown = cli.OrDash(v.Default) + " (default)"
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\n", v.Name, shown, v.Meaning)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, s := range p.Sets {
			fmt.Fprintf(w, "  one address from %s\n", s)
		}
	}
	return nil
}
