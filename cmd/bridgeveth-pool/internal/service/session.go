// Package service fills the stock of a network: once, or as a service.
//
// Start with Session. connect.go makes the client of etcd, probe.go finds out why etcd does not answer, serve.go is
// the loop of the service.
package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
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

const (
	answerTime = 3 * time.Second        // how long one attempt waits for etcd
	tryTime    = 10 * time.Second       // how long all attempts take
	pause      = 200 * time.Millisecond // between two attempts
)

// errSilent means that etcd did not answer.
var errSilent = errors.New("no answer")

// Session is the connection of one network to etcd.
type Session struct {
	server ipamconfig.Etcd
	stock  stock.Stock
	client *clientv3.Client // nil if there is no connection

	members []string // the endpoints for the next connection
	next    int      // the number of the endpoint to use after a failed attempt
}

// Open returns a session. It does not call etcd.
func Open(c *ipamconfig.Config, h host.Host) *Session {
	members := c.Pool.Server.Endpoints
	s := &Session{server: c.Pool.Server, members: members, next: rand.N(len(members)), stock: stock.Stock{
		Member: registry.Member{Prefix: c.Pool.Server.Prefix, Host: h.ID, Network: c.Name, Name: h.Name, Boot: h.Boot},
		Spare:  c.Pool.Spare, Dir: c.DataDir,
	}}
	for _, set := range c.Sets {
		s.stock.Pools = append(s.stock.Pools, blocks.Pool{Set: set, Bits: c.Pool.BlockBits(set)})
	}
	return s
}

// Close ends the connection. The next request makes a new one.
func (s *Session) Close() {
	if s.client != nil {
		_ = s.client.Close() // the error is that of ended requests
	}
	s.client = nil
}

// Fill hears from etcd and claims the missing blocks, and the blocks of the given addresses. The error
// names the key of the configuration that is wrong, or says since when etcd does not answer. It may be
// an error of package registry.
func (s *Session) Fill(ctx context.Context, addresses ...netip.Addr) error {
	return s.try(ctx, func(ctx context.Context) error { return s.stock.Fill(ctx, addresses...) })
}

// try calls step until etcd answers or tryTime is over. A member of etcd that is cut off from the other
// members refuses requests, and a member that hangs does not answer. The client of etcd sends each
// request to another member. After a failed attempt, try therefore uses only one member, another
// one in each attempt.
func (s *Session) try(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), tryTime)
	defer cancel()
	for {
		err := s.attempt(ctx, step)
		if !errors.Is(err, errSilent) {
			return s.named(err)
		}
		s.members = s.server.Endpoints[s.next : s.next+1]
		s.next = (s.next + 1) % len(s.server.Endpoints)
		if sleep(ctx, pause); ctx.Err() != nil {
			return s.named(fmt.Errorf("etcd unreachable since %s (%s): %w: %w", s.since(), s.room(), err, probe(s.server)))
		}
	}
}

// attempt calls step once. The error may be errSilent.
func (s *Session) attempt(ctx context.Context, step func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if s.client == nil {
		if s.client, err = connect(s.server, s.members); err == nil {
			s.stock.Member.KV = s.client.KV
		}
	}
	if err == nil {
		err = step(ctx)
	}
	var of rpctypes.EtcdError
	refused := errors.As(err, &of)
	switch {
	case err != nil && ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.Unavailable, refused && of.Code() == codes.Unavailable:
		s.Close()
		return fmt.Errorf("%w: %w", errSilent, err)
	case refused:
		s.Close() // the next connection reads the files again
		return explain(s.server, err)
	}
	return err
}

// named returns an error that names the network.
func (s *Session) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("network %s: %w", s.stock.Member.Network, err)
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

// room says how long the host can do without etcd.
func (s *Session) room() string {
	containers, err := s.stock.Room()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("this host has addresses for %d more containers", containers)
}
