package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

// delegate is the IPAM plugin of a configuration. The zero delegate is none: a
// network of layer 2 only.
type delegate struct {
	name string
	self bool // it is this very file, so its verbs are called in this process
	args *skel.CmdArgs
}

// newDelegate looks up the plugin in CNI_PATH.
func newDelegate(c *config, args *skel.CmdArgs, host *setup.Namespace) (*delegate, error) {
	d := &delegate{name: c.IPAM.Type, args: args}
	if d.name == "" {
		return d, nil
	}
	path, err := invoke.FindInPath(d.name, filepath.SplitList(args.Path))
	if err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.type: no plugin %q in CNI_PATH (%s); install it there", d.name, args.Path)
	}
	if d.self = d.name == ipamsimple.Name && isSelf(path); d.self {
		ipamsimple.HasLink = func(a ipam.Attachment) bool {
			return host.HasPort(setup.Attachment{Network: a.Network, Container: a.Container, Interface: a.Interface})
		}
	}
	return d, nil
}

// isSelf says whether path is the file that is running: to call its functions is
// then the same as to start it, less a process.
func isSelf(path string) bool {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Stat(path)
	return err == nil && os.SameFile(self, other)
}

// add reserves addresses. Without an IPAM plugin there are none.
func (d *delegate) add() (*current.Result, error) {
	switch {
	case d.name == "":
		return &current.Result{}, nil
	case d.self:
		return ipamsimple.Add(d.args)
	}
	r, err := invoke.DelegateAdd(context.Background(), d.name, d.args.StdinData, nil)
	if err != nil {
		return nil, d.failed("ADD", err)
	}
	result, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, d.failed("ADD", fmt.Errorf("read its result: %w", err))
	}
	return result, nil
}

func (d *delegate) del() error {
	return d.call("DEL", ipamsimple.Del, invoke.DelegateDel)
}

func (d *delegate) check() error {
	return d.call("CHECK", ipamsimple.Check, invoke.DelegateCheck)
}

func (d *delegate) gc() error {
	return d.call("GC", ipamsimple.GC, invoke.DelegateGC)
}

func (d *delegate) status() error {
	return d.call("STATUS", ipamsimple.Status, invoke.DelegateStatus)
}

// call runs a verb that has no result, in this process or in another.
func (d *delegate) call(verb string, inside func(*skel.CmdArgs) error,
	outside func(context.Context, string, []byte, invoke.Exec) error,
) error {
	switch {
	case d.name == "":
		return nil
	case d.self:
		return inside(d.args)
	}
	if err := outside(context.Background(), d.name, d.args.StdinData, nil); err != nil {
		return d.failed(verb, err)
	}
	return nil
}

// failed keeps the delegate's own code, where it has given one.
func (d *delegate) failed(verb string, err error) error {
	return plugin.Errorf(plugin.CodeDelegate, "%s of IPAM plugin %s: %w", verb, d.name, err)
}
