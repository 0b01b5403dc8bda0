package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// referenceDir is the folder beside this program where make install-dropin keeps the reference plugins.
const referenceDir = "reference"

// orReference returns verbs that call the reference plugin for attachments that are not ours: containers
// that it attached before it was replaced, and interfaces of other plugins, such as ptp, before portmap
// or firewall. It returns own if the reference plugin is not in referenceDir.
func orReference(name string, own skel.CNIFuncs) skel.CNIFuncs {
	self, err := os.Executable()
	if err != nil {
		return own
	}
	path := filepath.Join(filepath.Dir(self), referenceDir, name)
	if _, err := os.Stat(path); err != nil {
		return own
	}
	theirs := func(verb string, ours func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			foreign, err := isForeign(args)
			if err != nil {
				return err
			}
			if !foreign {
				return ours(args)
			}
			if verb == "DEL" { // whose attachment it was may be unknown by now, so both plugins delete it
				err = ours(args)
			}
			out, failed := plugin.Execute(path, verb, args.StdinData)
			if failed != nil {
				return plugin.Errorf(plugin.CodeDelegate, "%s of %s: %w", verb, path, errors.Join(failed, err))
			}
			if _, err := os.Stdout.Write(out); err != nil {
				return plugin.Errorf(types.ErrIOFailure, "print the result: %w", err)
			}
			return err
		}
	}
	all := own
	all.Check, all.Del = theirs("CHECK", own.Check), theirs("DEL", own.Del)
	if name != plugin.Bridge { // bridge attaches, so the attachment is ours
		all.Add = theirs("ADD", own.Add)
	}
	return all
}

// isForeign reports whether an attachment is not ours: its port is neither on the host nor in the result
// of ADD.
func isForeign(args *skel.CmdArgs) (bool, error) {
	var conf struct {
		Name       string `json:"name"`
		PrevResult struct {
			Interfaces []struct {
				Name string `json:"name"`
			} `json:"interfaces"`
		} `json:"prevResult"`
	}
	if json.Unmarshal(args.StdinData, &conf) != nil {
		return false, nil // our plugin reports the error
	}
	a := attachment.Of(conf.Name, args)
	for _, i := range conf.PrevResult.Interfaces {
		if i.Name == a.Port() {
			return false, nil
		}
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return false, attachment.Error(err)
	}
	defer host.Close()
	has, err := host.HasPort(a)
	if err != nil {
		return false, attachment.Error(err)
	}
	return !has, nil
}
