package ipamsimple

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// route are the keys of one route (CNI specification 1.1.0, "ADD Success"), which
// are passed on as they are. Table and Scope differ between 0 and absent.
type route struct {
	Dst      string `json:"dst"`
	GW       string `json:"gw"`
	MTU      int    `json:"mtu"`
	AdvMSS   int    `json:"advmss"`
	Priority int    `json:"priority"`
	Table    *int   `json:"table"`
	Scope    *int   `json:"scope"`
}

// readRoutes reads the routes and lists what is wrong with them.
func (c *config) readRoutes(list []json.RawMessage) (bad []error) {
	for i, data := range list {
		var r route
		path := fmt.Sprintf("ipam.routes[%d].", i)
		if err := errors.Join(plugin.Decode(data, &r, path)); err != nil {
			bad = append(bad, err)
			continue
		}
		dst, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			bad = append(bad, fmt.Errorf("%sdst: %q is no subnet; write one as 0.0.0.0/0 or fd00:1::/64", path, r.Dst))
		}
		gw, err := netip.ParseAddr(r.GW)
		if err != nil && r.GW != "" {
			bad = append(bad, fmt.Errorf("%sgw: %q is no IP address; write one, or leave it out for the gateway of the address", path, r.GW))
		}
		c.routes = append(c.routes, &types.Route{
			Dst: plugin.IPNet(dst), GW: gw.AsSlice(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	return bad
}
