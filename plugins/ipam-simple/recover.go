package ipamsimple

import (
	"cmp"
	"encoding/json"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// attachedLeases returns the addresses that a network's containers already have. The store needs
// them if it does not know the network yet. They come from libcni's records and from the
// containers' interfaces.
//
// If two leases have the same address, the store takes the first. The records of containers without
// a link are therefore last: a DEL that was killed after it had freed the address leaves such a
// record.
func (p Plugin) attachedLeases(network string) ([]ipam.Lease, error) {
	recorded, err := p.recordedLeases(network)
	if err != nil || p.LinkAddresses == nil {
		return recorded, err
	}
	atLinks, err := p.LinkAddresses(network)
	var linked, others []ipam.Lease
	for _, l := range recorded {
		if p.hasLink(l.Attachment) {
			linked = append(linked, l)
		} else {
			others = append(others, l)
		}
	}
	return slices.Concat(linked, atLinks, others), err
}

// recordedLeases returns the addresses of a network in libcni's records. It ignores records from
// before the last boot, and records of containers that are gone. It also ignores files that it
// cannot read: they belong to the runtime and must not make ADD fail.
func (p Plugin) recordedLeases(network string) (leases []ipam.Lease, err error) {
	booted, err := ipam.BootTime()
	if err != nil {
		return nil, err
	}
	records, _, err := cnicache.Read(cnicache.DefaultDir, network)
	for _, r := range records {
		if r.Written.Before(booted) {
			continue
		}
		for _, l := range leasesOf(r) {
			if isNamespace(l.Namespace.Path) || p.hasLink(l.Attachment) {
				leases = append(leases, l)
			}
		}
	}
	return leases, err
}

// recordedNetworks returns the names of the networks in libcni's records whose leases are in the
// store in the folder dataDir.
func recordedNetworks(dataDir string) (names []string, err error) {
	records, _, err := cnicache.Read(cnicache.DefaultDir, "")
	for _, r := range records {
		if !slices.Contains(names, r.Network) && usesStore(r, dataDir) {
			names = append(names, r.Network)
		}
	}
	return names, err
}

// usesStore reports whether the configuration in a record has ipam-simple with this dataDir.
func usesStore(r *cnicache.Record, dataDir string) bool {
	plugins, err := r.Plugins()
	return err == nil && slices.ContainsFunc(plugins, func(text json.RawMessage) bool {
		var conf struct {
			IPAM struct {
				Type    string `json:"type"`
				DataDir string `json:"dataDir"`
			} `json:"ipam"`
		}
		return json.Unmarshal(text, &conf) == nil && plugin.IsIPAMSimple(conf.IPAM.Type) && cmp.Or(conf.IPAM.DataDir, ipam.DefaultDir) == dataDir
	})
}

// isNamespace reports whether a namespace is mounted at path. After an unmount, only a plain file
// remains at path.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// leasesOf returns the addresses in a record, or none if its result cannot be read.
func leasesOf(r *cnicache.Record) (leases []ipam.Lease) {
	result, err := r.ParseResult()
	if err != nil {
		return nil
	}
	for _, ip := range result.IPs {
		l := ipam.Lease{
			Attachment: ipam.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface},
			Address:    plugin.Prefix(ip.Address), Gateway: plugin.Addr(ip.Gateway), Namespace: ipam.NamespaceAt(r.Namespace), Time: r.Written,
		}
		if l.Address.IsValid() {
			leases = append(leases, l)
		}
	}
	return leases
}
