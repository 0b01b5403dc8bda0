package plugin

import (
	"fmt"
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
	err := refuseNulls(conf.RawPrevResult)
	if err == nil {
		err = version.ParsePrevResult(conf)
	}
	var result *current.Result
	if err == nil {
		result, err = current.NewResultFromResult(conf.PrevResult)
	}
	if err != nil {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "prevResult: %w", err)
	}
	return result, nil
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
