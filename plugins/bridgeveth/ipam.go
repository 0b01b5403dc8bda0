package bridgeveth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

// delegate is the IPAM plugin of a configuration. A layer 2 network has no IPAM plugin: the name is
// then empty.
type delegate struct {
	name, path string
	self       bool // the IPAM plugin is in this executable file, so its verbs run in this process
	inside     ipamsimple.Plugin
	args       *skel.CmdArgs
}

// newDelegate returns the IPAM plugin of a configuration. It searches CNI_PATH for the plugin's file.
func newDelegate(c *attachment.Config, args *skel.CmdArgs, host *setup.Host) (*delegate, error) {
	d := &delegate{name: c.IPAM.Type, args: args}
	if d.name == "" {
		return d, nil
	}
	if filepath.Base(d.name) != d.name {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.type: %q is a path; set the name of a file in CNI_PATH", d.name)
	}
	if d.path, d.self = findIPAM(d.name, args.Path); d.path == "" {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.type: there is no plugin %q in CNI_PATH (%s); install it there", d.name, args.Path)
	}
	if d.self {
		d.inside.HasLink = func(a ipam.Attachment) bool {
			has, err := host.HasPort(setup.Attachment(a))
			// If HasPort returns an error, the port may still exist. The lease must then be kept.
			return has || err != nil
		}
		d.inside.LinkAddresses = func(network string) ([]ipam.Lease, error) { return interfaceLeases(host, network) }
	}
	return d, nil
}

// findIPAM looks up an IPAM plugin in CNI_PATH. path is empty if CNI_PATH does not contain the
// plugin. self is true if the plugin is ipam-simple, in the same executable file as this process.
func findIPAM(name, cniPath string) (path string, self bool) {
	for _, dir := range filepath.SplitList(cniPath) {
		path = filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, plugin.IsIPAMSimple(name) && isSelf(info)
		}
	}
	return "", false
}

// interfaceLeases returns the addresses on the interfaces of a network's containers, as leases.
func interfaceLeases(host *setup.Host, network string) (leases []ipam.Lease, err error) {
	all, err := host.AttachedInterfaces(network)
	for _, i := range all {
		for _, address := range i.Addresses {
			leases = append(leases, ipam.Lease{Attachment: ipam.Attachment(i.Attachment), Address: address, Time: time.Now()})
		}
	}
	return leases, err
}

// isSelf reports whether a file is the running program.
func isSelf(file os.FileInfo) bool {
	self, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(self, file)
}

// add reserves addresses for the container. Without an IPAM plugin, the result is empty.
func (d *delegate) add() (*current.Result, error) {
	switch {
	case d.name == "":
		return &current.Result{}, nil
	case d.self:
		return d.inside.Add(d.args)
	}
	out, err := d.execute("ADD")
	if err != nil {
		return nil, err
	}
	raw, err := create.CreateFromBytes(out)
	if err != nil {
		return nil, d.failed("ADD", fmt.Errorf("read its result: %w", err))
	}
	result, err := current.NewResultFromResult(raw)
	if err != nil {
		return nil, d.failed("ADD", fmt.Errorf("read its result: %w", err))
	}
	return result, nil
}

// refused reports whether add has failed because another process held the lock on the store for too
// long. In this case, add has reserved nothing. The caller then does not release addresses, because
// this would wait for the same lock again.
func (d *delegate) refused(err error) bool {
	var coded *types.Error
	return d.self && errors.As(err, &coded) && coded.Code == types.ErrTryAgainLater
}

func (d *delegate) del() error { return d.call("DEL", d.inside.Del) }
func (d *delegate) gc() error  { return d.call("GC", d.inside.GC) }

// check compares the leases with prevResult, which the caller has read.
func (d *delegate) check(previous *current.Result) error {
	return d.call("CHECK", func(args *skel.CmdArgs) error { return d.inside.CheckResult(args, previous) })
}

// status returns an error if no address is free. Otherwise it returns a result like that of ADD.
// The subnets and gateways are correct, but the addresses may differ from those of the next ADD.
// result is nil if the IPAM plugin is another program.
func (d *delegate) status() (result *current.Result, err error) {
	switch {
	case d.name == "":
		return &current.Result{}, nil
	case d.self:
		return d.inside.ExpectedResult(d.args)
	}
	_, err = d.execute("STATUS")
	return nil, err
}

// call runs a verb that returns no result. The parameter inside is the function of this verb. call
// uses this function if the IPAM plugin is in this executable file. Otherwise it starts the file of
// the IPAM plugin.
func (d *delegate) call(verb string, inside func(*skel.CmdArgs) error) error {
	switch {
	case d.name == "":
		return nil
	case d.self:
		return inside(d.args)
	}
	_, err := d.execute(verb)
	return err
}

// execute runs the IPAM plugin as a program.
func (d *delegate) execute(verb string) ([]byte, error) {
	out, err := plugin.Execute(d.path, verb, d.args.StdinData)
	if err != nil {
		return nil, d.failed(verb, err)
	}
	return out, nil
}

// failed adds the verb and the name of the IPAM plugin to err. The error keeps the code that the
// IPAM plugin has set, if any.
func (d *delegate) failed(verb string, err error) error {
	return plugin.Errorf(plugin.CodeDelegate, "%s of IPAM plugin %s: %w", verb, d.name, err)
}
