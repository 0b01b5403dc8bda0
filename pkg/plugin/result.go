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

// Previous reads prevResult, what the plugin before in a chain or the ADD before a CHECK has
// returned; nil without it.
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

// parseResult reads a result of any version: the one that the result names, or else the one
// given. The record that libcni keeps of an attachment holds the result in the version that its
// runtime spoke. That may be older than the newest version of the configuration (cniVersions).
func parseResult(result map[string]any, version string) (*current.Result, error) {
	if own, _ := result["cniVersion"].(string); own != "" {
		version = own
	}
	result["cniVersion"] = version // the library wants it there
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

// refuseNulls names a null in one of the lists of a result. The library's own conversions do
// not expect any.
func refuseNulls(result map[string]any) error {
	for key, value := range result {
		list, _ := value.([]any)
		if i := slices.Index(list, nil); i >= 0 {
			return fmt.Errorf("%s[%d]: null stands where an object belongs", key, i)
		}
	}
	return nil
}

// IPNet is a prefix as results have it.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Prefix is n as netip has it, an IPv4 address in four bytes.
func Prefix(n net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(Addr(n.IP), bits)
}

// Addr is ip as netip has it, an IPv4 address in four bytes; the zero Addr where there is none.
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
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
