package admin

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/service"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// Release takes the blocks from a host that is down, and prints their number for each network. The host
// is given by its name or ID.
func Release(ctx context.Context, networks []*ipamconfig.Config, self host.Host, name string, w io.Writer) error {
	return eachState(ctx, networks, self, name, func(ctx context.Context, c *clientv3.Client, prefix string, s *registry.State) error {
		count, err := registry.Release(ctx, c, prefix, s.Owner)
		if err == nil {
			fmt.Fprintf(w, "host %s (%s), network %s: %d blocks released\n", s.Name, s.Host, s.Network, count)
		}
		return err
	})
}

// Forget deletes the record of a host that may be up, and prints when its blocks have no owner.
func Forget(ctx context.Context, networks []*ipamconfig.Config, self host.Host, name string, w io.Writer) error {
	return eachState(ctx, networks, self, name, func(ctx context.Context, c *clientv3.Client, prefix string, s *registry.State) error {
		left, count, err := registry.Forget(ctx, c, prefix, s.Owner)
		switch {
		case err != nil:
			return err
		case left > 0:
			fmt.Fprintf(w, "host %s (%s), network %s: forgotten; its %d blocks have no owner in %s\n", s.Name, s.Host, s.Network, len(s.Blocks), left.Truncate(time.Second))
		default:
			fmt.Fprintf(w, "host %s (%s), network %s: the grace time is over; %d blocks released\n", s.Name, s.Host, s.Network, count)
		}
		return nil
	})
}

// eachState calls step for each network of the host that has a name or ID.
func eachState(ctx context.Context, networks []*ipamconfig.Config, self host.Host, name string, step func(context.Context, *clientv3.Client, string, *registry.State) error) error {
	pools, err := surveyed(ctx, networks, self)
	if err != nil {
		return err
	}
	var ids []string
	for _, p := range pools {
		for of, s := range p.survey.States {
			if (of.Host == name || s.Name == name) && !slices.Contains(ids, of.Host) {
				ids = append(ids, of.Host)
			}
		}
	}
	slices.Sort(ids)
	switch {
	case len(ids) == 0:
		return fmt.Errorf("--host: no host of the pool has the name or ID %q; list the hosts by bvctl pool", name)
	case len(ids) > 1:
		return fmt.Errorf("--host: %d hosts have the name %q; give the ID of one: %s", len(ids), name, strings.Join(ids, ", "))
	case ids[0] == self.ID:
		return fmt.Errorf("--host: %q is this host, and it is up; run the command on another host", name)
	}
	for _, p := range pools {
		c := p.networks[0]
		session := service.Open(c, self)
		defer session.Close()
		for _, s := range p.survey.Sorted() {
			if s.Host != ids[0] {
				continue
			}
			if err := session.Do(ctx, func(ctx context.Context, client *clientv3.Client) error {
				return step(ctx, client, c.Pool.Server.Prefix, s)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
