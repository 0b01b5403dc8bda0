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

// Previous returns prevResult, which is the result of the plugin before in the list or, for
// CHECK, the result of ADD. It returns nil if there is no prevResult.
func Previous(conf *types.PluginConf) (*current.Result, error) {
	if conf.RawPrevResult == nil {
		return nil, nil //nolint:nilnil // as documented
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

// parseResult parses a result in the CNI version that the result names, or in the given version
// if it names none. A result in libcni's record has the version that the runtime uses, which may
// be older than the newest version of the configuration (cniVersions).
func parseResult(result map[string]any, version string) (*current.Result, error) {
	if own, _ := result["cniVersion"].(string); own != "" {
		version = own
	}
	result["cniVersion"] = version // the library expects the version there
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

// refuseNulls returns an error if a list in a result contains null, because the CNI library's conversions do not
// check for null.
func refuseNulls(result map[string]any) error {
	for key, value := range result {
		list, _ := value.([]any)
		if i := slices.Index(list, nil); i >= 0 {
			return fmt.Errorf("%s[%d]: null instead of an object", key, i)
		}
	}
	return nil
}

// IPNet returns a prefix in the type that the CNI library uses in results.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Prefix is the inverse of IPNet. It returns an IPv4 address with four bytes.
func Prefix(n net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(Addr(n.IP), bits)
}

// Addr returns ip as a netip.Addr, with four bytes for an IPv4 address. It returns the zero Addr
// for nil.
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// PassOn prints prevResult unchanged, for a plugin that adds nothing to it.
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

// PrintResult prints a result in the given version of CNI.
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
