package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// defaultInterface is the interface of a reservation that names none: those of
// host-local before version 0.8 did not.
const defaultInterface = "eth0"

// HasHostLocal says whether host-local has a folder for a network in its dataDir.
func HasHostLocal(dataDir, network string) bool {
	if dataDir == "" {
		return false
	}
	info, err := os.Stat(filepath.Join(dataDir, network))
	return err == nil && info.IsDir()
}

// importOnce takes over what host-local has reserved since the host was booted, for
// containers that are attached while their network changes to us. It does so once:
// from then on only we know of them. What host-local has is left alone.
func (n *network) importOnce(dataDir string) error {
	if n.imported(dataDir) || !HasHostLocal(dataDir, n.name) {
		return nil
	}
	leases, err := hostLocalLeases(filepath.Join(dataDir, n.name), n.name)
	if err != nil {
		return fmt.Errorf("take over reservations of host-local: %w", err)
	}
	if err := n.takeOver(leases); err != nil {
		return err
	}
	return n.root.Put(importedKey(dataDir), nil)
}

// takeOver adds leases that somebody else has given. Where an address is leased here, our own
// lease counts.
func (n *network) takeOver(leases []Lease) error {
	holds := map[Attachment][]Lease{}
	for _, l := range leases {
		if _, held, err := n.lease(l.Address.Addr()); err != nil {
			return err
		} else if held {
			continue
		}
		holds[l.Attachment] = append(holds[l.Attachment], l)
		if err := n.occupyAny(l.Address.Addr()); err != nil {
			return err
		}
		if err := n.put(l); err != nil {
			return err
		}
	}
	for a, leases := range holds {
		already, err := n.held(a)
		if err != nil {
			return err
		}
		if err := n.hold(a, append(already, leases...)); err != nil {
			return err
		}
	}
	return nil
}

// imported says whether the network has what host-local had.
func (n *network) imported(dataDir string) bool {
	return dataDir == "" || n.root.Get(importedKey(dataDir)) != nil
}

func importedKey(dataDir string) []byte { return []byte("imported " + dataDir) }

// hostLocalLeases reads the reservations in a folder of host-local's: a file for
// each address, which holds the container's ID and in the next line the interface
// (pkg/plugins/ipam/host-local/backend/disk of containernetworking/plugins). Empty
// ones, which it leaves when a disk is full, those of zero bytes, which a file system
// leaves after a crash, and those from before the host was booted are nobody's.
func hostLocalLeases(dir, network string) (leases []Lease, err error) {
	booted, err := BootTime()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue // its lock, and the last address of each range
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // freed just now
		}
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		words := strings.Fields(string(content))
		if len(words) == 0 || strings.Contains(string(content), "\x00") || info.ModTime().Before(booted) {
			continue
		}
		owner := Attachment{network, words[0], defaultInterface}
		if len(words) > 1 {
			owner.Interface = words[1]
		}
		leases = append(leases, Lease{Attachment: owner, Address: netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), Time: info.ModTime()})
	}
	return leases, nil
}

// BootTime is when the host was booted. What is older is of no container that runs.
func BootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read time since boot: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}
