package conflist

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Foreign is a network configuration that the agent did not write. It is in the same folder as the
// agent's configuration.
type Foreign struct {
	Name   string         // name of the file
	Ahead  bool           // the name sorts before that of the File; a runtime uses the configuration whose name sorts first
	Ranges []netip.Prefix // the ranges from which its IPAM plugins lease addresses
}

// foreignPlugin holds the keys that have the same meaning in configurations of bridgeveth and of
// the reference plugins.
type foreignPlugin struct {
	Type   string `json:"type"`
	Bridge string `json:"bridge"`
	IPAM   struct {
		Subnet string `json:"subnet"`
		Ranges [][]struct {
			Subnet string `json:"subnet"`
		} `json:"ranges"`
	} `json:"ipam"`
}

// Foreign returns two kinds of configurations that other programs have written to the folder of f:
// those whose name sorts before the name of f, and those that use the pods' bridge.
func (f File) Foreign(bridge string) (list []Foreign, err error) {
	entries, err := os.ReadDir(filepath.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.Name() == filepath.Base(f.Path) || ext != ".conf" && ext != ".conflist" && ext != ".json" {
			continue
		}
		other := Foreign{Name: e.Name(), Ahead: e.Name() < filepath.Base(f.Path)}
		concerned := other.Ahead
		for _, p := range readPlugins(filepath.Join(filepath.Dir(f.Path), e.Name())) {
			concerned = concerned || plugin.IsBridgeveth(p.Type) && cmp.Or(p.Bridge, setup.DefaultBridge) == bridge
			other.Ranges = append(other.Ranges, p.ranges()...)
		}
		if concerned {
			list = append(list, other)
		}
	}
	return list, err
}

// readPlugins returns the plugins in a configuration file, which contains a list of plugins or a
// single plugin. If the file cannot be read, readPlugins returns none, because the runtime itself
// reports such a file.
func readPlugins(path string) []foreignPlugin {
	var conf struct {
		foreignPlugin
		Plugins []foreignPlugin `json:"plugins"`
	}
	text, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(text, &conf) != nil {
		return nil
	}
	return append(conf.Plugins, conf.foreignPlugin)
}

// ranges returns the subnets from which the plugin leases addresses.
func (p foreignPlugin) ranges() (list []netip.Prefix) {
	texts := []string{p.IPAM.Subnet}
	for _, set := range p.IPAM.Ranges {
		for _, r := range set {
			texts = append(texts, r.Subnet)
		}
	}
	for _, text := range texts {
		if subnet, err := netip.ParsePrefix(text); err == nil {
			list = append(list, subnet.Masked())
		}
	}
	return list
}
