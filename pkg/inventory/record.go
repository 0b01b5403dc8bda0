package inventory

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Record is libcni's record of an attachment. Its methods compare the attachment with the host
// and repair it, as far as our plugins have made it.
type Record struct{ *cnicache.Record }

// Damaged returns an error for each record of libcni that cannot be read.
func (inv *Inventory) Damaged() ([]error, error) {
	_, damaged, err := cnicache.Read(inv.CacheDir, "")
	return damaged, err
}

// records returns libcni's records. It calls Warn with an error about each record that cannot be
// read.
func (inv *Inventory) records() (list []Record, err error) {
	all, damaged, err := cnicache.Read(inv.CacheDir, "")
	for _, d := range damaged {
		inv.Warn(d)
	}
	for _, r := range all {
		list = append(list, Record{r})
	}
	return list, err
}

// Pods returns the name of the pod for each attachment, from libcni's records.
func (inv *Inventory) Pods() (map[setup.Attachment]string, error) {
	records, err := inv.records()
	pods := map[setup.Attachment]string{}
	for _, r := range records {
		pods[r.Attachment()] = r.Pod()
	}
	return pods, err
}

// Attachment returns the attachment of the record.
func (r Record) Attachment() setup.Attachment {
	return setup.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface}
}

// addresses returns the addresses and the routes in the main table, from the recorded result of
// ADD.
func (r Record) addresses() (addresses []netip.Prefix, routes []setup.Route) {
	result, err := r.ParseResult()
	if err != nil {
		return nil, nil
	}
	for _, ip := range result.IPs {
		addresses = append(addresses, plugin.Prefix(ip.Address))
	}
	for _, route := range attachment.Routes(result) {
		if route.Table == nil {
			routes = append(routes, route)
		}
	}
	return addresses, routes
}

// calls returns the arguments of CHECK with which libcni would call each of our plugins. It
// returns none for an attachment of other plugins. A plugin of the type bridge is ours if the
// result has our port. portmap and firewall are ours if they come after such a bridge.
func (r Record) calls() (calls []*skel.CmdArgs, err error) {
	list, err := libcni.ConfListFromBytes(r.Config)
	if list, err = orSingle(list, err, r.Config); err != nil {
		return nil, err
	}
	dropIn := false
	for _, p := range list.Plugins {
		switch p.Network.Type {
		case plugin.Bridgeveth:
		case plugin.Bridge:
			if !bytes.Contains(r.Result, []byte(r.Attachment().Port())) {
				continue
			}
			dropIn = true
		case plugin.PortMap, plugin.Firewall:
			if !dropIn {
				continue
			}
		default:
			continue
		}
		call, err := r.call(list, p)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return calls, nil
}

// call returns the arguments of CHECK for the plugin p of the list.
func (r Record) call(list *libcni.NetworkConfigList, p *libcni.PluginConfig) (*skel.CmdArgs, error) {
	asked := map[string]any{}
	for name, supported := range p.Network.Capabilities {
		if data, ok := r.Capabilities[name]; ok && supported {
			asked[name] = data
		}
	}
	conf, err := libcni.InjectConf(p, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion, "prevResult": r.Result, "runtimeConfig": asked})
	if err != nil {
		return nil, err
	}
	args := make([]string, 0, len(r.Args))
	for _, a := range r.Args {
		args = append(args, a[0]+"="+a[1])
	}
	return &skel.CmdArgs{
		ContainerID: r.Container, Netns: r.Namespace, IfName: r.Interface, Args: strings.Join(args, ";"), StdinData: conf.Bytes,
	}, nil
}

// eachPart calls f with the Part of each of our plugins that have made a part of the attachment.
// It continues after errors.
func (r Record) eachPart(f func(attachment.Part) error) error {
	calls, err := r.calls()
	for _, call := range calls {
		part, failed := attachment.OpenPart(call)
		if failed == nil && part != nil {
			failed = f(part)
			part.Close()
		}
		err = errors.Join(err, failed)
	}
	return err
}

// Verify compares the attachment with the host and the container, and changes nothing. host and
// container name the differences from the result of ADD. Repair can remove only those on the
// host.
func (r Record) Verify() (host, container error) {
	err := r.eachPart(func(p attachment.Part) error {
		onHost, inside := p.Verify()
		container = errors.Join(container, inside)
		return onHost
	})
	return err, container
}

// Missing returns what Repair would restore: see attachment.Part.
func (r Record) Missing() (network []string, port, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		ofNetwork, ofPort, err := p.Missing()
		network, port = append(network, ofNetwork...), errors.Join(port, ofPort)
		return err
	})
	return network, port, err
}

// Repair restores the parts of the attachment that the host has lost, and returns the names of
// these parts.
func (r Record) Repair() (restored []string, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		more, err := p.Repair()
		restored = append(restored, more...)
		return err
	})
	return restored, err
}
