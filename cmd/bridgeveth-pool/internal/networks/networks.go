// Package networks reads the networks whose hosts share a pool of addresses from the configuration
// files of the runtimes.
package networks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// extensions are those of the files that libcni reads.
var extensions = []string{".conf", ".conflist", ".json"}

// object is a JSON object.
type object = map[string]json.RawMessage

// Folder returns the networks with a pool in the files of a folder, sorted by file. A network may be
// in several files if its pool is the same in each. The error names each file that cannot be used.
// The other networks are returned nevertheless.
func Folder(dir string) (all []*ipamconfig.Config, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bad []error
	for _, e := range entries {
		if !slices.Contains(extensions, filepath.Ext(e.Name())) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		var list []*ipamconfig.Config
		if err == nil {
			list, err = Parse(text)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", path, err))
		}
		for _, c := range list {
			same := slices.IndexFunc(all, func(o *ipamconfig.Config) bool { return o.Name == c.Name })
			if same >= 0 && !bytes.Equal(all[same].IPAM, c.IPAM) {
				bad = append(bad, fmt.Errorf("%s: another file has another pool for network %s; give each network a name of its own", path, c.Name))
			} else if same < 0 {
				all = append(all, c)
			}
		}
	}
	return all, errors.Join(bad...)
}

// Parse returns the networks with a pool in a plugin list or in the configuration of one plugin.
func Parse(text []byte) (list []*ipamconfig.Config, err error) {
	var top object
	if err := json.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("the configuration is no JSON object: %w", err)
	}
	plugins := []object{top}
	if top["plugins"] != nil {
		if err := json.Unmarshal(top["plugins"], &plugins); err != nil {
			return nil, fmt.Errorf("plugins: the value is no list of objects: %w", err)
		}
	}
	for _, p := range plugins {
		var ipam struct {
			Type string          `json:"type"`
			Pool json.RawMessage `json:"pool"`
		}
		if json.Unmarshal(p["ipam"], &ipam) != nil || ipam.Pool == nil || !plugin.IsIPAMSimple(ipam.Type) {
			continue
		}
		for _, key := range []string{"name", "cniVersion"} {
			if top[key] != nil {
				p[key] = top[key]
			}
		}
		whole, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		c, err := ipamconfig.Read(&skel.CmdArgs{StdinData: whole})
		if err != nil {
			return nil, err
		}
		if wrong := utils.ValidateNetworkName(c.Name); wrong != nil {
			return nil, fmt.Errorf("name: %q: %s; use letters, digits, hyphens and dots", c.Name, wrong.Msg)
		}
		list = append(list, c)
	}
	return list, nil
}
