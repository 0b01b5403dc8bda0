package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// answerTime is how long one Fill waits for etcd.
const answerTime = 5 * time.Second

// Session is the connection of one network to etcd.
type Session struct {
	client   *clientv3.Client
	stock    stock.Stock
	server   ipamconfig.Etcd
	settings *tls.Config // nil if etcd does not use TLS
}

// Open returns a session. The error names the key of the configuration that is wrong.
func Open(c *ipamconfig.Config, h host.Host) (*Session, error) {
	client, settings, err := connect(c.Pool.Server)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", c.Name, err)
	}
	s := &Session{client: client, server: c.Pool.Server, settings: settings, stock: stock.Stock{
		Member: registry.Member{KV: client.KV, Prefix: c.Pool.Server.Prefix, Host: h.ID, Network: c.Name, Name: h.Name, Boot: h.Boot},
		Spare:  c.Pool.Spare, Dir: c.DataDir,
	}}
	for _, set := range c.Sets {
		s.stock.Pools = append(s.stock.Pools, blocks.Pool{Set: set, Bits: c.Pool.BlockBits(set)})
	}
	return s, nil
}

// Close ends the connection.
func (s *Session) Close() { _ = s.client.Close() } // the error is that of ended requests

// Fill hears from etcd and claims the missing blocks. The error says since when etcd does not
// answer. It may be an error of package registry.
func (s *Session) Fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.stock.Fill(ctx); err != nil {
		return fmt.Errorf("network %s: %w", s.stock.Member.Network, s.silence(err))
	}
	return nil
}

// silence says since when etcd does not answer, if this is the error.
func (s *Session) silence(err error) error {
	var of rpctypes.EtcdError
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.Unavailable || errors.As(err, &of) && of.Code() == codes.Unavailable {
		return fmt.Errorf("etcd unreachable since %s: %w: %w", s.since(), err, probe(s.server.Endpoints, s.settings))
	}
	return err
}

// since returns the time at which etcd was last heard.
func (s *Session) since() string {
	_, _, heard, err := s.stock.Low()
	now, failed := ipam.SinceBoot()
	if err != nil || heard == 0 || failed != nil {
		return "the boot"
	}
	return time.Now().Add(heard - now).Format(time.DateTime)
}
