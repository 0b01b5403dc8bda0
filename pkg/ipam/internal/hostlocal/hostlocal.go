package hostlocal

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

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
)

// defaultInterface is the interface of a reservation that does not name an interface. host-local
// before version 0.8 wrote such reservations.
const defaultInterface = "eth0"

// HasNetwork reports whether host-local has a folder for a network in its dataDir.
func HasNetwork(dataDir, network string) bool {
	if dataDir == "" {
		return false
	}
	info, err := os.Stat(filepath.Join(dataDir, network))
	return err == nil && info.IsDir()
}

// Leases returns the reservations of a network in host-local's dataDir. host-local has a file for
// each address. The file has the container's ID in the first line and the interface in the second
// line (pkg/plugins/ipam/host-local/backend/disk of containernetworking/plugins).
//
// Three kinds of files are no reservations:
//
//   - empty files, which host-local leaves on a full disk;
//   - files with zero bytes, which a file system leaves after a crash;
//   - files that are older than the last boot.
func Leases(dataDir, network string) (list []leases.Lease, err error) {
	booted, err := BootTime()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(dataDir, network)
	if err := files.CheckFolder(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue // a file of host-local that is no reservation: its lock, or the last address of a range
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // host-local has freed the address in the meantime
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
		holder := leases.Attachment{Network: network, Container: words[0], Interface: defaultInterface}
		if len(words) > 1 {
			holder.Interface = words[1]
		}
		list = append(list, leases.Lease{
			Attachment: holder, Address: netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), Time: info.ModTime(),
		})
	}
	return list, nil
}

// BootTime returns the time at which the host was booted. A reservation from before this time
// belongs to no running container.
func BootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read time since boot: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}
