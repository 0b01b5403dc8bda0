package poolsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const (
	prefix  = "/bridgeveth"
	network = "net"
	// mostContainers is the greatest number of containers of a host.
	mostContainers = 100
	// The times of package service, in units.
	look, hear, retry = 1, 60, 10
	answerTime        = 5 * time.Second
	storeWait         = time.Minute
)

// container is a container with its address.
type container struct {
	id      string
	address netip.Addr
}

// host is one host. The goroutine of its runtime owns all fields but those of the service.
type host struct {
	r       *run
	rng     *rand.Rand
	id, dir string
	link    *link
	client  *clientv3.Client // for the etcd lease
	plan    map[int]string   // faults by number of the step
	steps   int
	boots   int
	next    int // number of the next container
	living  []container
	waiting []container         // ADD has failed for these, and the runtime tries again
	leased  map[ipam.Block]bool // blocks of which a container has had an address
	lost    bool                // the host does not come back
	settled bool                // settle has succeeded

	stop  func()      // ends the service
	used  atomic.Bool // ADD has leased an address since the service has last looked
	ready chan bool   // closed when the service has filled the stock for the first time
}

// stock returns what a new process of bridgeveth-pool knows.
func (h *host) stock() *stock.Stock {
	return &stock.Stock{
		Member: registry.Member{KV: h.link, Prefix: prefix, Host: h.id, Network: network, Name: h.id, Boot: fmt.Sprint("boot", h.boots)},
		Pools:  []blocks.Pool{{Set: h.r.set, Bits: blockBits}}, Spare: 1, Dir: h.dir,
	}
}

// fill calls Fill as a process does that may be killed during the call.
func fill(ctx context.Context, s *stock.Stock) (err error) {
	defer func() {
		if p := recover(); p == errKilled { //nolint:errorlint // the value of a panic
			err = errKilled
		} else if p != nil {
			panic(p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return s.Fill(ctx)
}

// fill calls the function fill when it is the turn of the host.
func (h *host) fill(ctx context.Context, s *stock.Stock) error {
	h.r.fills <- true
	defer func() { <-h.r.fills }()
	return fill(ctx, s)
}

// startService starts the service bridgeveth-pool of the host.
func (h *host) startService() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan bool)
	h.stop = func() {
		cancel()
		<-done
	}
	h.ready = make(chan bool)
	go func() {
		defer close(done)
		h.serve(ctx)
	}()
}

// serve does what package service does for one network, until ctx ends.
func (h *host) serve(ctx context.Context) {
	unit := h.r.unit()
	s, ready, next, failed := h.stock(), h.ready, time.Now(), false
	var alive keeper
	defer func() { alive.end() }()
	for ctx.Err() == nil {
		low := false
		if !failed && h.used.Swap(false) {
			h.r.stores <- true
			low, _, _, _ = s.Low() // the error appears in Fill
			<-h.r.stores
		}
		if h.link.cut.Load() {
			alive.end() // a service that is cut off cannot prolong its etcd lease
		}
		if low || !time.Now().Before(next) {
			err := alive.begin(ctx, h, s)
			if err == nil {
				err = h.fill(ctx, s)
			}
			wait := hear
			if failed = err != nil; failed {
				wait = retry
				h.r.failure(ctx, err)
			} else if ready != nil {
				close(ready)
				ready = nil
			}
			if errors.Is(err, errKilled) {
				alive.end()
				s, wait = h.stock(), look // systemd starts the service again
			}
			next = time.Now().Add(time.Duration(wait) * unit * 9 / 8)
		}
		sleep(ctx, look*unit)
	}
}

// failure counts an error of bridgeveth-pool. It is a problem if no fault of the run explains it.
func (r *run) failure(ctx context.Context, err error) {
	reason := ""
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, errKilled):
		reason = "killed"
	case errors.Is(err, errCut):
		reason = "cut off"
	case errors.Is(err, registry.ErrClone):
		reason = "rebooted within the last minute"
	case errors.Is(err, registry.ErrFull):
		reason = "no block is free"
	case errors.Is(err, registry.ErrUnheard):
		reason = "the record has changed"
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		reason = "the etcd lease of the service had ended"
	case unavailable(err):
		reason = "etcd does not answer"
	default:
		r.problem("bridgeveth-pool: %v", err)
		return
	}
	r.count(failed + reason)
}

// keeper keeps the etcd lease of a running service alive.
type keeper struct {
	ended <-chan bool
	stop  context.CancelFunc
}

// begin makes an etcd lease if there is none.
func (k *keeper) begin(ctx context.Context, h *host, s *stock.Stock) error {
	select {
	case <-k.ended:
		k.end()
	default:
	}
	if k.stop != nil {
		return nil
	}
	if h.link.cut.Load() {
		return errCut
	}
	grant, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	lease, err := h.client.Grant(grant, h.r.leaseTime())
	if err != nil {
		return err
	}
	ctx, k.stop = context.WithCancel(ctx)
	answers, err := h.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	ended := make(chan bool)
	k.ended = ended
	go func() {
		defer close(ended)
		for range answers { // until etcd has forgotten the lease
		}
	}()
	s.Lease = lease.ID
	return nil
}

// end lets the etcd lease run out, as the end of a killed service does.
func (k *keeper) end() {
	if k.stop != nil {
		k.stop()
	}
	*k = keeper{}
}

// add is ADD of ipam-simple for a new container.
func (h *host) add() {
	h.next++
	h.attempt(container{id: fmt.Sprintf("%s-%d", h.id, h.next)}, true)
}

// attempt leases an address. If the host has none, it claims a block as "bridgeveth-pool claim" does. If
// this fails, the runtime tries again in the next step.
func (h *host) attempt(c container, first bool) {
	lease, block, err := h.reserve(c.id)
	if dry(err) {
		if first && errors.Is(err, ipam.ErrUnheard) {
			h.r.count(waitedUnheard)
		} else if first {
			h.r.count(waitedDry)
		}
		if err = h.fill(context.Background(), h.stock()); err != nil {
			h.r.failure(context.Background(), err)
			h.waiting = append(h.waiting, c)
			if first {
				h.r.count(refused)
			}
			return
		}
		lease, block, err = h.reserve(c.id)
	}
	h.used.Store(true)
	if err != nil {
		h.r.problem("ADD of %s: %v", c.id, err)
		return
	}
	c.address = lease
	h.take(c, block)
}

// take records that a container has got an address.
func (h *host) take(c container, block ipam.Block) {
	if other := h.r.ledger.add(c.address, c.id); other != "" {
		h.r.problem("%s has got %s, which %s has", c.id, c.address, other)
	}
	h.r.ledger.count()
	h.living = append(h.living, c)
	h.leased[block] = true
	h.r.left.Add(-1)
	h.r.added.Add(1)
}

// dry reports whether ADD starts bridgeveth-pool after an error.
func dry(err error) bool {
	return errors.Is(err, ipam.ErrExhausted) || errors.Is(err, ipam.ErrNoBlock) || errors.Is(err, ipam.ErrUnheard)
}

// reserve calls the function reserve when it is the turn of the host.
func (h *host) reserve(id string) (address netip.Addr, block ipam.Block, err error) {
	h.r.stores <- true
	defer func() { <-h.r.stores }()
	return reserve(h.dir, h.r.set, id)
}

// reserve leases an address in a store. It returns the block of the address too.
func reserve(dir string, set ipam.Set, id string) (address netip.Addr, block ipam.Block, err error) {
	store, err := ipam.Open(dir, storeWait)
	if err != nil {
		return address, block, err
	}
	leases, err := store.Reserve(request(set, id))
	if err == nil {
		var list []ipam.Block
		_, list, _, err = store.Blocks(network)
		address = leases[0].Address.Addr()
		for _, b := range list {
			if b.Subnet.Contains(address) {
				block = b
			}
		}
	}
	return address, block, errors.Join(err, store.Close())
}

// attachment returns the interface of a container.
func attachment(id string) ipam.Attachment {
	return ipam.Attachment{Network: network, Container: id, Interface: "eth0"}
}

// request returns the request that ADD makes for a container.
func request(set ipam.Set, id string) ipam.Request {
	return ipam.Request{Attachment: attachment(id), Sets: []ipam.Set{set}, Pool: true}
}

// del is DEL: it frees the address of a random container.
func (h *host) del() {
	i := h.rng.IntN(len(h.living))
	c := h.living[i]
	h.living[i] = h.living[len(h.living)-1]
	h.living = h.living[:len(h.living)-1]
	h.r.ledger.remove(c.address) // before DEL, because another container may get the address as soon as it is free
	h.r.stores <- true
	store, err := ipam.OpenExisting(h.dir, storeWait)
	if err == nil {
		err = errors.Join(store.Release(attachment(c.id)), store.Close())
	}
	<-h.r.stores
	if err != nil {
		h.r.problem("DEL of %s: %v", c.id, err)
	}
	h.used.Store(true)
	h.r.freed.Add(1)
}

// storeFiles returns the files of the host's store.
func (h *host) storeFiles() []string {
	list, _ := filepath.Glob(filepath.Join(h.dir, "leases-*.db")) // the pattern is well-formed
	return list
}

// live lets the host make containers, until all addresses of the run are handed out.
func (h *host) live(all *sync.WaitGroup) {
	defer all.Done()
	pause := h.r.pause()
	sleep(context.Background(), time.Duration(h.rng.Int64N(int64(pause))))
	for h.r.left.Load() > 0 && !h.lost {
		h.step()
		sleep(context.Background(), pause/2+time.Duration(h.rng.Int64N(int64(pause))))
	}
}

// step makes some containers, or ends some, or a fault.
func (h *host) step() {
	h.steps++
	number, burst := h.rng.IntN(1000), 1+h.rng.IntN(8)
	switch fault := h.plan[h.steps]; {
	case fault != "":
		h.strike(fault)
	case len(h.waiting) > 0:
		again := h.waiting
		h.waiting = nil
		for _, c := range again {
			h.attempt(c, false)
		}
	case number < 4:
		h.strike(crashed)
	case number < 14:
		h.strike(killed)
	case number < 20: // a drain: all containers go to other hosts
		for len(h.living) > 0 {
			h.del()
		}
	case number%2 == 0 && len(h.living) < mostContainers:
		if number < 40 {
			burst = mostContainers - len(h.living)
		}
		for range burst {
			h.add()
		}
	default:
		for range min(burst, len(h.living)) {
			h.del()
		}
	}
}

// sleep waits until the time is over or ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
