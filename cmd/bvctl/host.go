package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

// lockWait is how long to wait for plugins to be done with the store.
const lockWait = 10 * time.Second

// host is where bvctl looks.
type host struct{ confDir, dataDir, cacheDir string }

// network are the keys of a configuration that bvctl needs.
type network struct {
	Name   string `json:"-"`
	Type   string `json:"type"`
	Bridge string `json:"bridge"`
	// MasqExclude are ranges that packets reach with the container's own address, such as those of
	// containers on other nodes.
	MasqExclude []string `json:"masqExclude"`
	IPAM        struct {
		Type    string `json:"type"`
		DataDir string `json:"dataDir"`
	} `json:"ipam"`
	conf []byte // all of it, as the plugin gets it
}

// mayBeOurs says whether the network uses bridgeveth or ipam-simple, as far as can be told
// from their names.
func (n network) mayBeOurs() bool {
	return n.Type == bridgeveth.Name || n.Type == bridgeveth.Reference || slices.Contains(ipamsimple.Names, n.IPAM.Type)
}

// networks reads the configurations that use bridgeveth or ipam-simple. A folder that
// is not there holds none. What cannot be read is said on standard error: the others
// are still of use.
func (h *host) networks() (list []network) {
	files, err := libcni.ConfFiles(h.confDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		complain(fmt.Errorf("list %s: %w", h.confDir, err))
	}
	for _, file := range files {
		conf, err := readList(file)
		if err != nil {
			complain(fmt.Errorf("%s: %w", file, err))
			continue
		}
		for _, p := range conf.Plugins {
			n := network{Name: conf.Name}
			whole, err := libcni.InjectConf(p, map[string]any{"name": conf.Name, "cniVersion": conf.CNIVersion})
			if err == nil {
				n.conf = whole.Bytes
				err = json.Unmarshal(p.Bytes, &n)
			}
			if err != nil {
				complain(fmt.Errorf("%s: %w", file, err))
			} else if n.mayBeOurs() {
				list = append(list, n)
			}
		}
	}
	return list
}

// readList reads a configuration, also one of a single plugin.
func readList(file string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.ConfListFromFile(file)
	conf, _ := os.ReadFile(file) // or else err says already why not
	return orSingle(list, err, conf)
}

// orSingle is a list as libcni has read it, or if there is none in conf, a list of the single
// plugin which that configures. libcni 1.3 takes that for a list without plugins, or says
// that it has none.
func orSingle(list *libcni.NetworkConfigList, err error, conf []byte) (*libcni.NetworkConfigList, error) {
	if err == nil && len(list.Plugins) > 0 {
		return list, nil
	}
	single, wrong := libcni.ConfFromBytes(conf) //nolint:staticcheck // administrators still have such files
	if wrong != nil {
		return list, err
	}
	return libcni.ConfListFromConf(single) //nolint:staticcheck // see above
}

// complain says what is wrong, but no reason to stop, on standard error.
func complain(err error) { fmt.Fprintln(stderr, "bvctl:", err) }

// withStores calls f with each store there is: those of the networks given and the default
// one, unless one is named by --data-dir. It goes on after errors.
func (h *host) withStores(networks []network, f func(*ipam.Store) error) error {
	dirs := []string{h.dataDir}
	if h.dataDir == "" {
		dirs[0] = ipamsimple.DefaultDataDir
		for _, n := range networks {
			if dir := n.IPAM.DataDir; slices.Contains(ipamsimple.Names, n.IPAM.Type) && dir != "" && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	var wrong []error
	for _, dir := range dirs {
		s, err := ipam.OpenExisting(dir, lockWait)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f(s), s.Close())
		}
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

// wanted is what the network needs on the host for containers with these addresses.
func (n network) wanted(addresses []bridgeveth.Address) (*setup.Network, error) {
	var whole []bridgeveth.Address
	for _, a := range addresses {
		if !a.IsSingleIP() { // or else taken over from host-local: its subnet is not known
			whole = append(whole, a)
		}
	}
	return bridgeveth.Wanted(n.conf, whole)
}
