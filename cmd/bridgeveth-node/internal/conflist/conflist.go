// Package conflist writes the network configuration (conflist) of a node. It takes a base
// configuration, in which an administrator may set any key, and adds the values that follow from
// the node's ranges.
package conflist

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

//go:embed base.conflist
var standard []byte

// Values are the values that the agent adds to the base configuration.
type Values struct {
	Ranges       []netip.Prefix
	NoMasquerade []netip.Prefix
	MTU          int // bytes
}

// Base is a network configuration without the values that differ from node to node.
type Base struct {
	list    map[string]any
	plugins []any
	at      int            // index of the plugin bridgeveth in the list "plugins"
	network map[string]any // the configuration of the plugin bridgeveth
}

// ReadBase reads and checks the base configuration in the file path. If path is "", it reads the
// built-in base configuration.
func ReadBase(path string) (*Base, error) {
	text := standard
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("base configuration: %w", err)
		}
	}
	b, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("base configuration %s: %w", path, err)
	}
	return b, nil
}

func parse(text []byte) (*Base, error) {
	b := &Base{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // numbers keep the form in which they were written
	if err := d.Decode(&b.list); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	b.plugins, _ = b.list["plugins"].([]any)
	for i, p := range b.plugins {
		network, _ := p.(map[string]any)
		if kind, _ := network["type"].(string); b.network == nil && plugin.IsBridgeveth(kind) {
			b.at, b.network = i, network
		}
	}
	if b.network == nil {
		return nil, errors.New(`plugins: no plugin has "type": "bridgeveth"; add one`)
	}
	if name, _ := b.list["name"].(string); name == "" {
		return nil, errors.New(`name: missing; add a name, such as "kubernetes"`)
	}
	conf, ok := b.network["ipam"].(map[string]any)
	if b.network["ipam"] == nil {
		conf, ok = map[string]any{"type": plugin.IPAMSimple}, true
		b.network["ipam"] = conf
	}
	if !ok {
		return nil, fmt.Errorf("ipam: %v is not an object; write it as {\"type\": \"ipam-simple\"}", b.network["ipam"])
	}
	for _, key := range []string{"ranges", "subnet", "rangeStart", "rangeEnd", "gateway", "exclude", "static"} {
		if conf[key] != nil {
			return nil, fmt.Errorf("ipam.%s: %v is the same on every node; remove the key, the agent sets the ranges from spec.podCIDRs", key, conf[key])
		}
	}
	if _, err := excluded(b.network); err != nil {
		return nil, err
	}
	network, err := b.Plugin(Values{})
	if err == nil {
		_, err = attachment.NetworkOf(network, nil) // returns the error that ADD would return
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// excluded returns the destinations in the key masqExclude.
func excluded(network map[string]any) (list []netip.Prefix, err error) {
	entries, ok := network["masqExclude"].([]any)
	if !ok && network["masqExclude"] != nil {
		return nil, fmt.Errorf("masqExclude: %v is not a list; write it as [\"10.0.0.0/8\"]", network["masqExclude"])
	}
	for _, e := range entries {
		text, _ := e.(string)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("masqExclude: %v is not a subnet; write it as \"10.0.0.0/8\"", e)
		}
		list = append(list, p)
	}
	return list, nil
}

// Bridge returns the name of the pods' bridge.
func (b *Base) Bridge() string {
	if name, ok := b.network["bridge"].(string); ok && name != "" {
		return name
	}
	return setup.DefaultBridge
}

// Name returns the name of the CNI network.
func (b *Base) Name() string { return b.list["name"].(string) }

// LeaseDir returns the folder of the lease store. ok is false if the IPAM plugin is not
// ipam-simple.
func (b *Base) LeaseDir() (dir string, ok bool) {
	conf := b.network["ipam"].(map[string]any)
	kind, _ := conf["type"].(string)
	dir, _ = conf["dataDir"].(string)
	return cmp.Or(dir, ipam.DefaultDir), plugin.IsIPAMSimple(kind)
}

// Complete returns the text of the network configuration of a node. Equal values give equal text.
// If the base configuration sets an MTU, Complete keeps this MTU.
func (b *Base) Complete(v Values) ([]byte, error) {
	network, err := b.complete(v)
	if err != nil {
		return nil, err
	}
	plugins, list := slices.Clone(b.plugins), maps.Clone(b.list)
	plugins[b.at] = network
	list["plugins"] = plugins
	text, err := json.MarshalIndent(list, "", "  ")
	return append(text, '\n'), err
}

// Plugin returns the configuration that a runtime passes to the plugin bridgeveth.
func (b *Base) Plugin(v Values) ([]byte, error) {
	network, err := b.complete(v)
	if err != nil {
		return nil, err
	}
	network["name"], network["cniVersion"] = b.list["name"], b.list["cniVersion"]
	return json.Marshal(network)
}

// complete returns the configuration of the plugin bridgeveth with the values of a node.
func (b *Base) complete(v Values) (network map[string]any, err error) {
	network = maps.Clone(b.network)
	conf := maps.Clone(b.network["ipam"].(map[string]any))
	sets := []any{}
	for _, r := range v.Ranges {
		sets = append(sets, []any{map[string]any{"subnet": r.String()}})
	}
	conf["ranges"], network["ipam"] = sets, conf
	if network["mtu"] == nil {
		network["mtu"] = v.MTU
	}
	if masquerades, _ := network["ipMasq"].(bool); !masquerades {
		return network, nil // without masquerade, bridgeveth refuses exceptions from it
	}
	not, err := excluded(b.network)
	if err != nil {
		return nil, err
	}
	for _, p := range v.NoMasquerade {
		if !slices.Contains(not, p) {
			not = append(not, p)
		}
	}
	if len(not) > 0 {
		network["masqExclude"] = not
	}
	return network, nil
}

// File is the file from which a runtime reads the network configuration.
type File struct {
	Path string
	// Volatile is the path of a file that a reboot deletes, such as a file in /run, or "". If it is
	// set, this file contains the network configuration, and Path is a symbolic link to this file.
	// After a reboot, the link is broken, so the runtime reports the node as not ready even before
	// the agent runs. If Volatile is "", Path is an ordinary file with the network configuration.
	Volatile string
}

// Write replaces the text of the file if it differs from the new text. changed reports whether
// Write replaced the text. The replacement is atomic: a runtime sees the old text or the new text,
// also after a crash. The names of temporary files end in ".new". No runtime reads files with such
// names.
func (f File) Write(text []byte) (changed bool, err error) {
	target, _ := os.Readlink(f.Path) // "" if Path is no symbolic link
	if old, err := os.ReadFile(f.Path); err == nil && bytes.Equal(old, text) && target == f.Volatile {
		return false, nil
	}
	write := func(temporary string) error { return writeSynced(temporary, text) }
	if f.Volatile != "" {
		if err := replace(f.Volatile, write); err != nil {
			return false, err
		}
		// A runtime watches only the folder of Path, so it does not notice a change of Volatile.
		// Therefore Write replaces the symbolic link too.
		write = func(temporary string) error { return os.Symlink(f.Volatile, temporary) }
	}
	return true, replace(f.Path, write)
}

// Remove removes the file, and reports whether it existed.
func (f File) Remove() (removed bool, err error) {
	for _, path := range []string{f.Path, f.Volatile} {
		removeErr := os.Remove(path)
		removed = removed || removeErr == nil
		if path != "" && removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	if removed {
		err = errors.Join(err, syncFolder(f.Path))
	}
	return removed, err
}

// replace replaces a file atomically. It calls write to create the new file under a temporary name
// in the same folder.
func replace(path string, write func(temporary string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) { // a killed agent may have left this file
		return err
	}
	err := write(temporary)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary) // if this fails, the next call removes the file
		return err
	}
	return syncFolder(path)
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncFolder writes the names in the folder of path to the disk, so that they survive a crash.
func syncFolder(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
