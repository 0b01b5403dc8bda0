package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/networks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

const (
	look       = time.Second      // between two looks at the stock, which do not call etcd
	reread     = 5 * time.Second  // between two looks at the configuration files
	hear       = time.Minute      // between two calls of etcd while the stock suffices
	retry      = 10 * time.Second // after an error
	leaseTime  = 60               // seconds after which etcd forgets a service that was killed
	revokeTime = 2 * time.Second
)

// Serve keeps the stock of each network in the folder of configurations filled until ctx ends. If a
// network is in no file any more, Serve returns its blocks as they become empty. Serve writes changes and
// errors to out, the same error only once in a row.
func Serve(ctx context.Context, dir string, h host.Host, out io.Writer) {
	lines := log.New(out, "bridgeveth-pool: ", log.Lmsgprefix)
	running := map[string]*service{}
	var all sync.WaitGroup
	last := ""
	for ctx.Err() == nil {
		list, err := networks.Folder(dir)
		if text := fmt.Sprint(err); text != last {
			if err != nil {
				lines.Print(err)
			}
			last = text
		}
		wanted := map[string]bool{}
		for _, c := range list {
			wanted[c.Name] = true
			r := running[c.Name]
			if r != nil && !r.leaving && bytes.Equal(r.conf.IPAM, c.IPAM) {
				continue
			}
			running[c.Name] = r.replace(ctx, &all, &service{conf: c, host: h, log: lines})
		}
		for name, r := range running {
			if !wanted[name] && !r.leaving && err == nil { // after an error, the network may be in the file with the mistake
				running[name] = r.replace(ctx, &all, r.left())
			}
		}
		sleep(ctx, reread)
	}
	all.Wait()
}

// service keeps the stock of one network filled.
type service struct {
	conf *ipamconfig.Config
	host host.Host
	log  *log.Logger

	// leaving is set if no configuration has the network any more. The service then claims no block for the
	// stock, returns each block that stays without a lease, and ends when the host has no block.
	leaving bool

	stop func() // ends the service and waits for its end
	last string // the last line in the log
}

// left returns the service that follows r when no configuration has the network any more. Runtimes that
// replace a file may delete it first, and containers may still use the network. So nothing else changes
// until a block was without a lease for as long as any other block that is returned.
func (r *service) left() *service {
	conf, pool := *r.conf, *r.conf.Pool
	conf.Pool, pool.Spare = &pool, 0
	return &service{conf: &conf, host: r.host, log: r.log, leaving: true}
}

// replace ends r, which may be nil, and starts and returns next.
func (r *service) replace(ctx context.Context, all *sync.WaitGroup, next *service) *service {
	if r != nil {
		r.stop()
	}
	next.start(ctx, all)
	return next
}

// start starts the service.
func (r *service) start(ctx context.Context, all *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	r.stop = func() {
		cancel()
		<-done
	}
	all.Add(1)
	go func() {
		defer all.Done()
		defer close(done)
		s := Open(r.conf, r.host)
		defer s.Close()
		r.run(ctx, s)
	}()
}

// run fills the stock until ctx ends or, if the service is leaving, until the host has no block.
func (r *service) run(ctx context.Context, s *Session) {
	defer func() {
		if s.stock.Lease != 0 && s.client != nil {
			end, cancel := context.WithTimeout(context.Background(), revokeTime)
			defer cancel()
			_, _ = s.client.Revoke(end, s.stock.Lease) // else the lease ends by itself
		}
	}()
	var alive <-chan *clientv3.LeaseKeepAliveResponse
	for ctx.Err() == nil {
		err := s.live(ctx, &alive)
		if err == nil {
			err = s.Fill(ctx)
		}
		wait := hear
		_, list, _, unread := s.stock.Low() // the error appears in the next Fill
		switch {
		case errors.Is(err, registry.ErrFull):
			r.say(err.Error() + "; this host has no block in stock: widen the range of the network")
		case errors.Is(err, stock.ErrLost):
			r.say(err.Error())
		case err != nil && ctx.Err() == nil:
			r.say(err.Error())
			wait = retry
		case r.leaving && err == nil && unread == nil && len(list) == 0:
			r.say(fmt.Sprintf("network %s: no configuration has the network, and this host owns no block of it", r.conf.Name))
			return
		case r.leaving && err == nil:
			r.say(fmt.Sprintf("network %s: no configuration has the network; this host owns %d blocks, and returns those that stay without a lease", r.conf.Name, len(list)))
		default:
			r.say(fmt.Sprintf("network %s: etcd answers, this host owns %d blocks", r.conf.Name, len(list)))
		}
		r.rest(ctx, s, wait+rand.N(wait/4), err != nil && !errors.Is(err, stock.ErrLost))
	}
}

// rest waits until the time is over or, if the last Fill has succeeded, until the stock is low.
func (r *service) rest(ctx context.Context, s *Session, wait time.Duration, failed bool) {
	for end := time.Now().Add(wait); time.Now().Before(end) && ctx.Err() == nil; {
		sleep(ctx, look)
		if low, _, _, err := s.stock.Low(); !failed && (low || err != nil) {
			return
		}
	}
}

// live makes an etcd lease if there is none, and keeps it alive in the background.
func (s *Session) live(ctx context.Context, alive *<-chan *clientv3.LeaseKeepAliveResponse) error {
	for *alive != nil {
		select {
		case _, open := <-*alive:
			if !open { // etcd was not reachable for leaseTime, or there is a new connection
				*alive = nil
			}
			continue
		default:
			return nil
		}
	}
	return s.try(ctx, func(grant context.Context) error {
		lease, err := s.client.Grant(grant, leaseTime)
		if err == nil {
			*alive, err = s.client.KeepAlive(ctx, lease.ID)
		}
		if err != nil {
			return fmt.Errorf("make an etcd lease: %w", err)
		}
		s.stock.Lease = lease.ID
		return nil
	})
}

// say writes a line to the log unless it is the line before.
func (r *service) say(line string) {
	if line != r.last {
		r.log.Print(line)
	}
	r.last = line
}

// sleep waits until the time is over or ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
