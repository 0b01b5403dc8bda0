package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Network is a network configuration that uses bridgeveth or ipam-simple.
type Network struct {
	Name        string   `json:"-"`
	Type        string   `json:"type"`
	Bridge      string   `json:"bridge"`
	MasqExclude []string `json:"masqExclude"` // subnets, such as those of containers on other nodes
	IPAM        struct {
		Type    string          `json:"type"`
		DataDir string          `json:"dataDir"`
		Pool    json.RawMessage `json:"pool"`
	} `json:"ipam"`

	conf []byte // the whole configuration of the plugin
}

// Networks returns the networks that are configured in ConfDir. For a file that it cannot read, it
// calls Warn with the error, and continues.
func (inv *Inventory) Networks() (list []Network) {
	files, err := libcni.ConfFiles(inv.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		inv.Warn(fmt.Errorf("list %s: %w", inv.ConfDir, err))
	}
	for _, file := range files {
		conf, err := readList(file)
		if err != nil {
			inv.Warn(fmt.Errorf("%s: %w", file, err))
			continue
		}
		for _, p := range conf.Plugins {
			n := Network{Name: conf.Name}
			whole, err := libcni.InjectConf(p, map[string]any{"name": conf.Name, "cniVersion": conf.CNIVersion})
			if err == nil {
				n.conf = whole.Bytes
				err = json.Unmarshal(p.Bytes, &n)
			}
			if err != nil {
				inv.Warn(fmt.Errorf("%s: %w", file, err))
			} else if n.attaches() || n.usesIPAM() {
				list = append(list, n)
			}
		}
	}
	return list
}

// attaches reports whether the interface plugin of the network has one of the names of bridgeveth.
// A plugin with the name "bridge" may also be the reference plugin.
func (n *Network) attaches() bool { return plugin.IsBridgeveth(n.Type) }

// usesIPAM reports whether the network's IPAM plugin has one of the names of ipam-simple.
func (n *Network) usesIPAM() bool { return plugin.IsIPAMSimple(n.IPAM.Type) }

// SharesPool reports whether the network shares its addresses with other hosts.
func (n *Network) SharesPool() bool { return n.usesIPAM() && n.IPAM.Pool != nil }

// Sets returns the sets of ranges of a network with the IPAM plugin ipam-simple.
func (n *Network) Sets() ([]ipam.Set, error) {
	return ipamconfig.Validate(&skel.CmdArgs{StdinData: n.conf})
}

// plan returns what the network needs on the host. addresses are the addresses of its containers.
func (n *Network) plan(addresses []attachment.Address) (*setup.Network, error) {
	var whole []attachment.Address
	for _, a := range addresses {
		if !a.IsSingleIP() { // a lease imported from host-local, whose subnet is unknown
			whole = append(whole, a)
		}
	}
	return attachment.NetworkOf(n.conf, whole)
}

// readList reads a configuration file with a plugin list or with a single plugin.
func readList(file string) (*libcni.NetworkConfigList, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseList(text, filepath.Dir(file))
}

// parseList reads a configuration with a plugin list or with a single plugin. Like libcni, it adds
// the plugins in the folder of the network below dir, unless dir is empty or the list has only inlined
// plugins.
func parseList(text []byte, dir string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(text)
	if err == nil && dir != "" && !list.LoadOnlyInlinedPlugins {
		var more []*libcni.PluginConfig
		more, err = libcni.NetworkPluginConfsFromFiles(dir, list.Name)
		list.Plugins = append(list.Plugins, more...)
	}
	list, err = orSingle(list, err, text)
	if err == nil && len(list.Plugins) == 0 {
		return nil, errors.New("plugins: no plugin is configured; add a list of plugins")
	}
	return list, err
}

// orSingle corrects libcni's results for a configuration: the parameters list and err. If the
// configuration has a single plugin instead of a list, libcni 1.3 returns an error or a list
// without plugins. orSingle then returns a list with this plugin. Otherwise it returns libcni's
// results.
func orSingle(list *libcni.NetworkConfigList, err error, conf []byte) (*libcni.NetworkConfigList, error) {
	if err == nil && len(list.Plugins) > 0 {
		return list, nil
	}
	single, wrong := libcni.ConfFromBytes(conf) //nolint:staticcheck // deprecated in libcni, but administrators still have such files
	if wrong != nil {
		return list, err
	}
	return libcni.ConfListFromConf(single) //nolint:staticcheck // see above
}
