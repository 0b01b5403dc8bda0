package ipamconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Route has the keys of one route (CNI specification 1.1.0, "ADD Success"). Their values go into
// the result unchanged. Table and Scope are pointers, because 0 differs from an absent key.
type Route struct {
	Dst      string `json:"dst"`
	GW       string `json:"gw"`
	MTU      int    `json:"mtu"`
	AdvMSS   int    `json:"advmss"`
	Priority int    `json:"priority"`
	Table    *int   `json:"table"`
	Scope    *int   `json:"scope"`
}

// readRoutes reads the routes and returns the mistakes.
func (c *Config) readRoutes(list []json.RawMessage) (bad []error) {
	for i, data := range list {
		var r Route
		path := fmt.Sprintf("ipam.routes[%d].", i)
		if err := errors.Join(plugin.Decode(data, &r, path)); err != nil {
			bad = append(bad, err)
			continue
		}
		dst, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			bad = append(bad, fmt.Errorf("%sdst: %q is not a subnet; write it as 0.0.0.0/0 or fd00:1::/64", path, r.Dst))
		}
		gw, err := netip.ParseAddr(r.GW)
		if err != nil && r.GW != "" {
			bad = append(bad, fmt.Errorf("%sgw: %q is not an IP address; write one, or delete the key to use the gateway of the range", path, r.GW))
		}
		c.Routes = append(c.Routes, &types.Route{
			Dst: plugin.IPNet(dst), GW: gw.AsSlice(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	return bad
}
