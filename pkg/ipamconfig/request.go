package ipamconfig

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// capabilities has the keys below "runtimeConfig" that this plugin reads.
type capabilities struct {
	IPs      []string            `json:"ips"`
	IPRanges [][]json.RawMessage `json:"ipRanges"`
}

// readRequest reads the addresses that the runtime requests. It looks in three places: the
// capability "ips", the key "args", and CNI_ARGS. When it has found addresses in a place, it
// ignores the places after it, as CONVENTIONS.md of containernetworking/cni says.
func (c *Config) readRequest(envArgs string) error {
	var args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	}
	if len(c.Args) > 0 {
		if err := plugin.Read(c.Args, &args, "args."); err != nil {
			return err
		}
	}
	env := plugin.Args(envArgs)
	for _, source := range []struct {
		key string
		ips []string
	}{
		{"runtimeConfig.ips", c.capabilities.IPs}, {"args.cni.ips", args.CNI.IPs}, {"CNI_ARGS: IP", strings.Split(env["IP"], ",")},
	} {
		var err error
		if c.Requested, err = parseAddresses(source.ips); err != nil {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "%s: %w", source.key, err)
		}
		if c.RequestedBy = source.key; len(c.Requested) > 0 {
			break
		}
	}
	if pod := env["K8S_POD_NAME"]; pod != "" && c.StickyFor > 0 {
		c.Pod = env["K8S_POD_NAMESPACE"] + "/" + pod
	}
	return nil
}

// parseAddresses reads addresses, with or without a prefix length. It ignores the prefix length,
// because the range of the address determines it.
func parseAddresses(texts []string) (list []netip.Addr, err error) {
	for _, text := range texts {
		if text == "" {
			continue // the same as absent, because runtimes send empty strings
		}
		address, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(address)
		if _, prefixErr := netip.ParsePrefix(text); err != nil || address != text && prefixErr != nil {
			return nil, fmt.Errorf("%q is not an IP address; write it as 10.1.0.9 or fd00:1::9/64", text)
		}
		if a = a.Unmap(); !slices.Contains(list, a) { // podman requests an address twice
			list = append(list, a)
		}
	}
	return list, nil
}
