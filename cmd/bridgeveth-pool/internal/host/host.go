// Package host reads what identifies this host in the pool: docs/pool.md.
package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	machineID   = "etc/machine-id"
	productUUID = "sys/class/dmi/id/product_uuid" // only root may read this file
	bootID      = "proc/sys/kernel/random/boot_id"
)

// Host identifies a machine and its boot.
type Host struct {
	ID   string // the same after each boot, also without the disk's data in /run and /var
	Name string // host name, for people
	Boot string
}

// machineIDs matches a valid machine ID: machine-id(5).
var machineIDs = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Read reads the files below the folder root, which is "/" except in tests. A machine without a
// product UUID in its firmware is identified by its machine ID alone. If there is a product UUID
// that cannot be read, Read returns an error: another identity would be another host.
func Read(root string) (Host, error) {
	path := filepath.Join(root, machineID)
	machine, err := read(path)
	if err != nil {
		return Host{}, fmt.Errorf("identity of this host: %w; write the file by systemd-machine-id-setup", err)
	}
	if !machineIDs.MatchString(machine) {
		return Host{}, fmt.Errorf("identity of this host: %s has %q instead of 32 hexadecimal digits; write the file by systemd-machine-id-setup", path, machine)
	}
	uuid, err := read(filepath.Join(root, productUUID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Host{}, fmt.Errorf("identity of this host: %w; run bridgeveth-pool as root", err)
	}
	boot, err := read(filepath.Join(root, bootID))
	if err != nil {
		return Host{}, fmt.Errorf("ID of the boot: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return Host{}, fmt.Errorf("host name: %w", err)
	}
	// machine-id(5) asks for a hash, because the machine ID itself is confidential.
	hash := sha256.Sum256([]byte("bridgeveth pool\n" + machine + "\n" + strings.ToLower(uuid)))
	return Host{ID: hex.EncodeToString(hash[:16]), Name: name, Boot: boot}, nil
}

// read returns the content of a file without white space at the end.
func read(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}
