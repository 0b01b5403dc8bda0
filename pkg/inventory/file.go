package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// File is a configuration file, as a runtime reads it.
type File struct {
	Name    string // of the network
	Version string // the CNI version that libcni uses
	Plugins []Plugin
	Text    []byte
}

// Plugin is the configuration of one plugin in a File.
type Plugin struct {
	Type  string
	IPAM  string // the type of the IPAM plugin, or ""
	Text  []byte // without the keys that libcni adds
	First bool   // no other plugin runs before this one

	whole []byte // the text with the keys that libcni adds
}

// ReadFile reads a configuration file with a plugin list or with a single plugin. The error is that
// of libcni, with the line of a mistake in JSON.
func ReadFile(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return newFile(text, filepath.Dir(path))
}

// ValidateList returns the mistakes in a plugin list that bvctl has made.
func ValidateList(list any) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	f, err := newFile(text, "")
	for i := range f.Plugins {
		_, wrong := f.Plugins[i].Validate()
		err = errors.Join(err, wrong)
	}
	return err
}

// newFile returns a File with the given text in the folder dir. An empty dir means that no file has
// the text yet. The File is never nil.
func newFile(text []byte, dir string) (*File, error) {
	f := &File{Text: text}
	list, err := parseList(text, dir)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return f, fmt.Errorf("line %d: %w", 1+bytes.Count(text[:syntax.Offset], []byte("\n")), err)
	}
	if err != nil {
		return f, err
	}
	f.Name, f.Version = list.Name, list.CNIVersion
	if wrong := utils.ValidateNetworkName(f.Name); wrong != nil {
		return f, fmt.Errorf("name: %q: %s; use letters, digits, hyphens and dots", f.Name, wrong.Msg)
	}
	if known := version.All.SupportedVersions(); f.Version != "" && !slices.Contains(known, f.Version) {
		return f, fmt.Errorf("cniVersion: %q is not supported; use one of %s", f.Version, strings.Join(known, ", "))
	}
	for i, p := range list.Plugins {
		whole, err := libcni.InjectConf(p, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
		if err != nil {
			return f, fmt.Errorf("plugins[%d]: %w", i, err)
		}
		f.Plugins = append(f.Plugins, Plugin{Type: p.Network.Type, IPAM: p.Network.IPAM.Type, Text: p.Bytes, whole: whole.Bytes, First: i == 0})
	}
	return f, nil
}

// Validate returns the sets of ranges of ipam-simple, and the mistakes for which ADD would refuse
// the configuration. The text of the error has one line for each mistake.
func (p *Plugin) Validate() (sets []ipam.Set, err error) {
	args := &skel.CmdArgs{StdinData: p.whole}
	err = attachment.Validate(args)
	if !plugin.IsBridgeveth(p.Type) {
		return nil, err
	}
	var below error
	if plugin.IsIPAMSimple(p.IPAM) {
		sets, below = ipamconfig.Validate(args)
	}
	if err = errors.Join(err, below); err != nil {
		return nil, err
	}
	var addresses []attachment.Address
	for _, s := range sets {
		addresses = append(addresses, attachment.Address{Prefix: netip.PrefixFrom(s[0].Start, s[0].Subnet.Bits()), Gateway: s[0].Gateway})
	}
	if len(sets) > 0 || p.IPAM == "" && p.First {
		err = attachment.ValidateResult(args, addresses)
	}
	return sets, err
}
