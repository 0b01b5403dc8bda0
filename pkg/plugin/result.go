package plugin

import (
	"net"
	"net/netip"
	"os"
	"slices"

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
	dropNulls(conf.RawPrevResult)
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

// dropNulls takes null out of the lists of a result, where another plugin may have written
// it, before the library converts old versions: that does not expect it either. Addresses
// name their interface by its place in the list; -1 is none.
func dropNulls(result map[string]any) {
	isNull := func(v any) bool { return v == nil }
	var places []int // of interfaces, by those before
	interfaces, _ := result["interfaces"].([]any)
	next := 0
	for _, i := range interfaces {
		if isNull(i) {
			places = append(places, -1)
			continue
		}
		places = append(places, next)
		next++
	}
	for key, value := range result {
		if list, ok := value.([]any); ok {
			result[key] = slices.DeleteFunc(list, isNull)
		}
	}
	addresses, _ := result["ips"].([]any)
	for _, a := range addresses {
		address, _ := a.(map[string]any)
		if before, ok := address["interface"].(float64); ok && before >= 0 && int(before) < len(places) {
			address["interface"] = places[int(before)]
		}
	}
}

// IPNet is a prefix as results have it.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
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

// PrintResult prints a result as the version asks.
func PrintResult(r *current.Result, version string) error {
	converted, err := r.GetAsVersion(version)
	if err != nil {
		return Errorf(types.ErrInvalidNetworkConfig, "cniVersion: the result cannot be told in %s: %w", version, err)
	}
	if latest, ok := converted.(*current.Result); ok {
		_, err = os.Stdout.Write(encodeResult(latest))
	} else {
		err = converted.Print()
	}
	if err != nil {
		return Errorf(types.ErrIOFailure, "print the result: %w", err)
	}
	return nil
}
