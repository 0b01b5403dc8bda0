package ipamsimple

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// capabilities are the keys below "runtimeConfig" that are ours.
type capabilities struct {
	IPs      []string            `json:"ips"`
	IPRanges [][]json.RawMessage `json:"ipRanges"`
}

// readRequest reads which addresses are wanted. Of the places where a runtime may
// say so the first counts that names any, as the conventions have it (containernetworking/cni,
// CONVENTIONS.md): the capability, then args, then CNI_ARGS.
func (c *config) readRequest(envArgs string) error {
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
	for _, place := range []struct {
		key string
		ips []string
	}{
		{"runtimeConfig.ips", c.capabilities.IPs}, {"args.cni.ips", args.CNI.IPs}, {"CNI_ARGS: IP", strings.Split(env["IP"], ",")},
	} {
		var err error
		if c.wanted, err = parseAddresses(place.ips); err != nil {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "%s: %w", place.key, err)
		}
		if c.wantedBy = place.key; len(c.wanted) > 0 {
			break
		}
	}
	if pod := env["K8S_POD_NAME"]; pod != "" && c.stickyFor > 0 {
		c.pod = env["K8S_POD_NAMESPACE"] + "/" + pod
	}
	return nil
}

// parseAddresses reads addresses, with or without the length of a prefix, which is
// that of the range anyway.
func parseAddresses(texts []string) (list []netip.Addr, err error) {
	for _, text := range texts {
		if text == "" {
			continue // as if it were absent: runtimes send such
		}
		address, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(address)
		if _, prefixErr := netip.ParsePrefix(text); err != nil || address != text && prefixErr != nil {
			return nil, fmt.Errorf("%q is no IP address; write one as 10.1.0.9 or fd00:1::9/64", text)
		}
		if a = a.Unmap(); !slices.Contains(list, a) { // podman says it twice
			list = append(list, a)
		}
	}
	return list, nil
}
