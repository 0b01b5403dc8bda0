package ipamsimple

import (
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// attachedLeases returns the addresses that a network's containers already have. The store needs
// them if it does not know the network yet. They come from libcni's records and from the
// containers' interfaces.
func (p Plugin) attachedLeases(network string) ([]ipam.Lease, error) {
	recorded, err := p.recordedLeases(network)
	if err != nil || p.LinkAddresses == nil {
		return recorded, err
	}
	atLinks, err := p.LinkAddresses(network)
	return append(recorded, atLinks...), err
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
