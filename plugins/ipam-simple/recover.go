package ipamsimple

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// recordsDir is where libcni records what it has attached, unless a runtime gives it another
// folder (CacheDir in libcni/api.go, with "results").
const recordsDir = "/var/lib/cni/results"

// attachedLeases returns the addresses that the containers of a network have, for a network
// that is new to the store: those in libcni's records, and those at the containers' links.
func (p Plugin) attachedLeases(network string) ([]ipam.Lease, error) {
	recorded, err := p.recordedLeases(network)
	if err != nil || p.LinkAddresses == nil {
		return recorded, err
	}
	atLinks, err := p.LinkAddresses(network)
	return append(recorded, atLinks...), err
}

// recordedLeases returns the addresses of a network in libcni's records (cachedInfo in
// libcni/api.go). It ignores records of containers that are gone. It also ignores files that it
// cannot read: they belong to the runtime, and must not stop the network.
func (p Plugin) recordedLeases(network string) (leases []ipam.Lease, err error) {
	booted, err := ipam.BootTime()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(recordsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), network+"-") {
			continue
		}
		info, err := e.Info()
		if err != nil || info.ModTime().Before(booted) {
			continue
		}
		for _, l := range readRecord(filepath.Join(recordsDir, e.Name()), info.ModTime()) {
			if l.Network == network && (isNamespace(l.Namespace.Path) || p.hasLink(l.Attachment)) {
				leases = append(leases, l)
			}
		}
	}
	return leases, nil
}

// isNamespace reports whether a namespace is mounted at path. After an unmount, the plain file
// below it stays.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// readRecord returns the addresses in one of libcni's records, or none when it cannot be read.
// The result in a record is of any version, 0.1.0 to the latest.
func readRecord(path string, since time.Time) (leases []ipam.Lease) {
	var r struct {
		Container string          `json:"containerId"`
		Interface string          `json:"ifName"`
		Network   string          `json:"networkName"`
		Namespace string          `json:"netns"`
		Result    json.RawMessage `json:"result"`
	}
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &r) != nil {
		return nil
	}
	raw, err := create.CreateFromBytes(r.Result)
	if err != nil {
		return nil
	}
	result, err := current.NewResultFromResult(raw)
	if err != nil {
		return nil
	}
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		l := ipam.Lease{
			Attachment: ipam.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface},
			Address:    netip.PrefixFrom(a.Unmap(), bits), Gateway: gateway.Unmap(), Namespace: ipam.NamespaceAt(r.Namespace), Time: since,
		}
		if l.Address.IsValid() {
			leases = append(leases, l)
		}
	}
	return leases
}
