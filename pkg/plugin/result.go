package plugin

import (
	"encoding/json"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// Previous reads prevResult, what the plugin before in a chain or the ADD before a CHECK has
// returned; nil without it.
func Previous(conf *types.PluginConf) (*current.Result, error) {
	if conf.RawPrevResult == nil {
		return nil, nil //nolint:nilnil // as documented
	}
	err := version.ParsePrevResult(conf)
	var result *current.Result
	if err == nil {
		result, err = current.NewResultFromResult(conf.PrevResult)
	}
	if err != nil {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "prevResult: %w", err)
	}
	return result, nil
}

// PassOn prints prevResult as the result of a plugin that adds nothing to it.
func PassOn(conf *types.PluginConf) error {
	previous, err := Previous(conf)
	if err == nil && previous == nil {
		err = Errorf(types.ErrInvalidNetworkConfig, `prevResult: it is missing; put %s behind another plugin in "plugins"`, conf.Type)
	}
	if err != nil {
		return err
	}
	return PrintResult(previous, conf.CNIVersion)
}

// PrintResult prints a result as the version asks. The library writes, reads and
// writes its own result again to leave out an empty dns, which takes longer than
// to create the veth pair's addresses and routes.
func PrintResult(r *current.Result, version string) error {
	converted, err := r.GetAsVersion(version)
	if err != nil {
		return Errorf(types.ErrInvalidNetworkConfig, "cniVersion: the result cannot be told in %s: %w", version, err)
	}
	if full, ok := converted.(*current.Result); ok {
		out := struct {
			CNIVersion string               `json:"cniVersion"`
			Interfaces []*current.Interface `json:"interfaces,omitempty"`
			IPs        []*current.IPConfig  `json:"ips,omitempty"`
			Routes     []*types.Route       `json:"routes,omitempty"`
			DNS        *types.DNS           `json:"dns,omitempty"`
		}{full.CNIVersion, full.Interfaces, full.IPs, full.Routes, nil}
		if !full.DNS.IsEmpty() {
			out.DNS = &full.DNS
		}
		err = json.NewEncoder(os.Stdout).Encode(out)
	} else {
		err = converted.Print()
	}
	if err != nil {
		return Errorf(types.ErrIOFailure, "print the result: %w", err)
	}
	return nil
}
