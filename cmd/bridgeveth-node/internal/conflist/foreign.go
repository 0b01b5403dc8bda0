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

// Foreign is a network configuration in the folder of a File that the agent did not write.
type Foreign struct {
	Name   string         // of the file
	Ahead  bool           // it sorts before the File: a runtime uses the first configuration by name
	Ranges []netip.Prefix // that its IPAM plugins give out
}

// foreignPlugin has the keys that bridgeveth and the reference plugins have in common.
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

// Foreign returns the configurations of others in the folder that concern the pods: those that sort
// before the File, and those on the pods' bridge.
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

// readPlugins returns the plugins of a file with a list of plugins or a single one. A file that
// cannot be read has none: the runtime itself reports it.
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

// ranges returns the subnets of a plugin.
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
