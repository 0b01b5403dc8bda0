package inventory

import (
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Record is libcni's record of an attachment. Its methods compare the attachment with the record,
// and repair the attachment on the host.
type Record struct {
	*cnicache.Record
	host  *setup.Host
	calls []*skel.CmdArgs // the results of Calls are calls and wrong
	wrong error
}

// on returns a copy of the record. With the copy, Verify, Missing and Repair work on the given
// host. After the last of these calls, the caller closes the host.
func (r Record) on(host *setup.Host) Record {
	r.host = host
	r.calls, r.wrong = r.Calls(r.Attachment().Port())
	return r
}

// Damaged returns an error for each record of libcni that cannot be read.
func (inv *Inventory) Damaged() ([]error, error) {
	_, damaged, err := cnicache.Read(inv.CacheDir, "")
	return damaged, err
}

// records returns libcni's records. For a record that it cannot read, it calls Warn with the error.
func (inv *Inventory) records() (list []Record, err error) {
	all, damaged, err := cnicache.Read(inv.CacheDir, "")
	for _, d := range damaged {
		inv.Warn(d)
	}
	for _, r := range all {
		list = append(list, Record{Record: r})
	}
	return list, err
}

// Pods returns the pod name of each attachment that has a record of libcni.
func (inv *Inventory) Pods() (map[setup.Attachment]string, error) {
	records, err := inv.records()
	pods := map[setup.Attachment]string{}
	for _, r := range records {
		pods[r.Attachment()] = r.Pod()
	}
	return pods, err
}

// Attachment returns the attachment that the record describes.
func (r Record) Attachment() setup.Attachment {
	return setup.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface}
}

// addresses returns the addresses and the routes in the recorded result of ADD. It leaves out the
// routes that are not in the main table.
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

// eachPart calls f with each Part of the attachment that one of our plugins has made. If f returns
// an error, eachPart continues with the next Part.
func (r Record) eachPart(f func(attachment.Part) error) error {
	err := r.wrong
	for _, call := range r.calls {
		part, failed := attachment.OpenPart(r.host, call)
		if failed == nil && part != nil {
			failed = f(part)
			part.Close()
		}
		err = errors.Join(err, failed)
	}
	return err
}

// Verify compares the attachment with the result of ADD, and changes nothing. The two errors
// describe the differences on the host and in the container. Repair cannot remove differences in
// the container.
func (r Record) Verify() (host, container error) {
	err := r.eachPart(func(p attachment.Part) error {
		onHost, inside := p.Verify()
		container = errors.Join(container, inside)
		return onHost
	})
	return err, container
}

// Missing returns what Repair would restore. See Missing of attachment.Part.
func (r Record) Missing() (network []string, port, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		ofNetwork, ofPort, err := p.Missing()
		network, port = append(network, ofNetwork...), errors.Join(port, ofPort)
		return err
	})
	return network, port, err
}

// Repair restores what the attachment has lost on the host, and returns the names of the restored
// parts.
func (r Record) Repair() (restored []string, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		more, err := p.Repair()
		restored = append(restored, more...)
		return err
	})
	return restored, err
}
