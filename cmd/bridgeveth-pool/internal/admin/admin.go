// Package admin has the commands for administrators, which "bvctl pool" runs.
//
// Start with List.
package admin

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/service"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// pool is the networks of this host whose blocks are below one prefix of one etcd.
type pool struct {
	networks []*ipamconfig.Config // at least one
	survey   *registry.Survey
}

// surveyed returns the pools of the networks, with what etcd stores about them.
func surveyed(ctx context.Context, networks []*ipamconfig.Config, self host.Host) (pools []*pool, err error) {
	byServer := map[string]*pool{}
	for _, c := range networks {
		server := strings.Join(append(c.Pool.Server.Endpoints, c.Pool.Server.Prefix), " ")
		p := byServer[server]
		if p == nil {
			p = &pool{}
			byServer[server] = p
			pools = append(pools, p)
		}
		p.networks = append(p.networks, c)
	}
	for _, p := range pools {
		if err := p.read(ctx, self); err != nil {
			return nil, err
		}
	}
	return pools, nil
}

// read reads what etcd stores about the pool.
func (p *pool) read(ctx context.Context, self host.Host) error {
	c := p.networks[0]
	s := service.Open(c, self)
	defer s.Close()
	return s.Do(ctx, func(ctx context.Context, kv *clientv3.Client) (err error) {
		p.survey, err = registry.ReadSurvey(ctx, kv, c.Pool.Server.Prefix)
		return err
	})
}

// network returns the configuration of a network on this host, or nil.
func (p *pool) network(name string) *ipamconfig.Config {
	for _, c := range p.networks {
		if c.Name == name {
			return c
		}
	}
	return nil
}
