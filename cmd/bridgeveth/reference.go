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

// referenceDir is the folder in which "make install-dropin" and the package bridgeveth-dropin keep
// the reference plugins. It is in the folder from which the runtime started this program.
const referenceDir = "reference"

// orReference returns verbs that call the reference plugin for attachments that bridgeveth has not
// made. These are containers that the reference plugin attached before bridgeveth replaced it. For
// portmap and firewall, these are also interfaces of other plugins, such as ptp. If the reference
// plugin is not in referenceDir, orReference returns the parameter own.
func orReference(name string, own skel.CNIFuncs) skel.CNIFuncs {
	// The name that the runtime started may be a link in another folder than this program. A name
	// without a folder is not searched in the working directory, which may belong to another user.
	self := os.Args[0]
	if !filepath.IsAbs(self) {
		var err error
		if self, err = os.Executable(); err != nil {
			return own
		}
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
			// If the bridge port is gone, nothing shows which plugin has made the attachment. DEL
			// therefore calls both plugins.
			if verb == "DEL" {
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
	// ADD of the plugin bridge always makes a new attachment, so it never calls the reference
	// plugin.
	if name != plugin.Bridge {
		all.Add = theirs("ADD", own.Add)
	}
	return all
}

// isForeign reports whether another plugin has made the attachment. This is so if bridgeveth's port
// is neither on the host nor in the result of ADD (prevResult).
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
		return false, nil // our plugin then reports the error
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
