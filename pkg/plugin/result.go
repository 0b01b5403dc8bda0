package plugin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// Previous returns prevResult. For CHECK and DEL, this is the result of ADD. For ADD, this is the
// result of the preceding plugin in the list. Previous returns nil if there is no prevResult.
func Previous(conf *types.PluginConf) (*current.Result, error) {
	if conf.RawPrevResult == nil {
		return nil, nil //nolint:nilnil // nil means that there is no prevResult
	}
	err := refuseNulls(conf.RawPrevResult)
	var result *current.Result
	if err == nil {
		result, err = parseResult(conf.RawPrevResult, conf.CNIVersion)
	}
	if err != nil {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "prevResult: %w", err)
	}
	return result, nil
}

// parseResult parses a result. The key cniVersion of the result says in which CNI version the
// result is written. If the key is missing, parseResult uses the parameter version, which is the
// cniVersion of the configuration. The two versions may differ: if a configuration has several
// versions (cniVersions), the runtime chooses one of them.
func parseResult(result map[string]any, version string) (*current.Result, error) {
	if own, _ := result["cniVersion"].(string); own != "" {
		version = own
	}
	result["cniVersion"] = version // the library expects the version in this key
	b, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	parsed, err := create.Create(version, b)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(parsed)
}

// refuseNulls returns an error if a list in a result contains null. The CNI library converts
// results without checking for null.
func refuseNulls(result map[string]any) error {
	for key, value := range result {
		list, _ := value.([]any)
		if i := slices.Index(list, nil); i >= 0 {
			return fmt.Errorf("%s[%d]: null instead of an object", key, i)
		}
	}
	return nil
}

// IPNet converts a prefix to the type that the CNI library uses in results.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Prefix is the inverse of IPNet. An IPv4 address in the result always has the IPv4 form, not the
// IPv4-mapped IPv6 form.
func Prefix(n net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(Addr(n.IP), bits)
}

// Addr converts ip to a netip.Addr, without the IPv4-mapped IPv6 form. It returns the zero Addr for
// nil.
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// PassOn prints prevResult unchanged. It is for plugins that add nothing to prevResult.
func PassOn(conf *types.PluginConf) error {
	previous, err := Previous(conf)
	if err == nil && previous == nil {
		err = Errorf(types.ErrInvalidNetworkConfig, `prevResult: it is missing; put %s after an interface plugin in "plugins"`, conf.Type)
	}
	if err != nil {
		return err
	}
	return PrintResult(previous, conf.CNIVersion)
}

// PrintResult prints a result in the given CNI version.
func PrintResult(r *current.Result, version string) error {
	converted, err := r.GetAsVersion(version)
	if err != nil {
		return Errorf(types.ErrInvalidNetworkConfig, "cniVersion: the result cannot be converted to %s: %w", version, err)
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
