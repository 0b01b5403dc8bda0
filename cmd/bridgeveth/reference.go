package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// referenceDir is the folder beside our programs where make install-dropin puts those
// that it replaces.
const referenceDir = "reference"

// orReference has the plugin that ours replaces do its work for what is none of ours:
// containers that it attached before it was replaced, and interfaces that others make, such
// as ptp, in front of portmap or firewall. It is only called if it has been kept.
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
			if verb == "DEL" { // whose it was may be impossible to say, so both do
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
	if name != bridgeveth.Reference { // what is first in a chain attaches, and it is us
		all.Add = theirs("ADD", own.Add)
	}
	return all
}

// isForeign says whether an attachment is none of ours: its port is neither on the host nor
// in what ADD has returned.
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
		return false, nil // ours says what is wrong with it
	}
	a := bridgeveth.AttachmentOf(conf.Name, args)
	for _, i := range conf.PrevResult.Interfaces {
		if i.Name == a.Port() {
			return false, nil
		}
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return false, bridgeveth.Error(err)
	}
	defer host.Close()
	return !host.HasPort(a), nil
}
