package poolsim

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const (
	members   = 3  // of etcd
	blockBits = 26 // the default of the key ipam.pool.block
	clients   = 16 // of etcd; the hosts share them
	few       = 64 // hosts that claim at the same time at the end
	// All hosts share two processors and one process, whose threads the limits keep few.
	mostStores, mostFills = 8, 128
	rushed                = 10 // addresses that each host hands out at once
)

// run is one run of the simulation.
type run struct {
	options
	t       *testing.T
	cluster *etcdtest.Cluster
	admin   *clientv3.Client
	set     ipam.Set
	hosts   []*host
	ledger  ledger
	claims  claims
	late    sync.WaitGroup // requests to etcd that arrive late

	stores chan bool // has room for the calls of stores that run at the same time
	fills  chan bool // the same for the processes of bridgeveth-pool that fill a stock

	left, added, freed, requests atomic.Int64

	mu       sync.Mutex
	counts   map[string]int
	problems []string
	measured measurements
	began    time.Time
}

// newRun starts etcd, and makes the hosts.
func newRun(t *testing.T, o options) *run {
	t.Helper()
	r := &run{
		options: o, t: t, began: time.Now(), counts: map[string]int{},
		ledger: ledger{holder: map[netip.Addr]string{}},
		stores: make(chan bool, mostStores), fills: make(chan bool, mostFills),
		claims: claims{owner: map[string]string{}, given: map[ipam.Block]string{}, writes: map[string]int{}},
	}
	r.claims.problem = r.problem
	r.left.Store(int64(o.addresses))
	var err error
	// The pool has four blocks for each host, or a few more.
	if r.set, err = complete(netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), blockBits-bits.Len(uint(4*o.hosts-1)))); err != nil {
		t.Fatal(err)
	}
	r.cluster = etcdtest.StartCluster(t, etcdtest.Options{Program: os.Getenv("ETCD_BIN"), Members: members})
	var list []*clientv3.Client
	for range clients {
		list = append(list, r.cluster.Client())
	}
	r.admin = r.cluster.Client()
	ctx, stop := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			r.claims.follow(ctx, r.admin, prefix+"/v1/")
		}
	})
	t.Cleanup(func() {
		stop()
		watch.Wait()
	})
	stores := t.TempDir()
	if err := unix.Mount("tmpfs", stores, "tmpfs", 0, ""); err != nil { // as /run is
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(stores, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for i := range o.hosts {
		r.hosts = append(r.hosts, r.newHost(i, filepath.Join(stores, fmt.Sprint(i)), list[i%clients]))
	}
	r.plan()
	return r
}

// newHost returns a host that does not run yet.
func (r *run) newHost(i int, dir string, client *clientv3.Client) *host {
	return &host{
		r: r, id: fmt.Sprintf("%032x", i), dir: dir, client: client, rng: rand.New(rand.NewPCG(r.seed, uint64(2*i))),
		link: &link{
			KV: client, late: &r.late, longest: 10 * r.unit(), requests: &r.requests, rng: rand.New(rand.NewPCG(r.seed, uint64(2*i+1))),
		},
		plan: map[int]string{}, leased: map[ipam.Block]bool{},
	}
}

// plan chooses the hosts that are lost for good, those whose clock jumps, and some that crash: one of a
// hundred each, and at least two. Further hosts crash at random.
func (r *run) plan() {
	rng := rand.New(rand.NewPCG(r.seed, 1<<62))
	order := rng.Perm(len(r.hosts))
	for i, fault := range []string{gone, jumped, crashed} {
		for n := range max(2, len(r.hosts)/100) {
			r.hosts[order[(3*n+i)%len(order)]].plan[3+rng.IntN(6)] = fault
		}
	}
}

// complete returns the addresses of a subnet.
func complete(subnet netip.Prefix) (ipam.Set, error) {
	r, bad := ipam.Range{Subnet: subnet}.Complete()
	return ipam.Set{r}, errors.Join(bad...)
}

// leaseTime returns how long etcd remembers a service that was killed, in seconds. etcd does not accept
// less than two seconds.
func (r *run) leaseTime() int64 { return max(2, int64(hear*r.unit()/time.Second)) }

// pause returns the mean time between two steps of a host. Half of the steps hand out addresses, 4.5 of
// them on average.
func (r *run) pause() time.Duration {
	return time.Duration(r.seconds) * time.Second * time.Duration(9*r.options.hosts) / time.Duration(4*r.addresses)
}

// start starts all hosts within 20 units of time, and waits until each has a block.
func (r *run) start() {
	began := time.Now()
	r.each(len(r.hosts), func(h *host) {
		sleep(context.Background(), time.Duration(h.rng.Int64N(int64(20*r.unit()))))
		h.boot()
		<-h.ready
	})
	r.measured.claimed = time.Since(began)
}

// each calls do for all hosts, for some of them at a time.
func (r *run) each(atOnce int, do func(*host)) {
	var all sync.WaitGroup
	turn := make(chan bool, atOnce)
	for _, h := range r.hosts {
		turn <- true
		all.Go(func() {
			do(h)
			<-turn
		})
	}
	all.Wait()
}

// rush hands out addresses on all hosts as fast as the machine can.
func (r *run) rush() {
	began, before := time.Now(), r.added.Load()
	r.each(len(r.hosts), func(h *host) {
		for range min(rushed, r.addresses/len(r.hosts)) {
			h.add()
		}
	})
	r.measured.rushRate = float64(r.added.Load()-before) / time.Since(began).Seconds()
}

// traffic hands out the other addresses, and frees addresses, while faults hit the hosts and etcd.
func (r *run) traffic() {
	ctx, stop := context.WithCancel(context.Background())
	var chaos sync.WaitGroup
	chaos.Go(func() { r.disturb(ctx, rand.New(rand.NewPCG(r.seed, 1<<63))) })
	began, before := time.Now(), r.added.Load()
	first, requests, blocks := r.state(), r.requests.Load(), r.claims.count("blocks")
	var all sync.WaitGroup
	for _, h := range r.hosts {
		all.Add(1)
		go h.live(&all)
	}
	all.Wait()
	m := &r.measured
	m.traffic, m.trafficAdded = time.Since(began), float64(r.added.Load()-before)
	m.requests, m.claims = float64(r.requests.Load()-requests), float64(r.claims.count("blocks")-blocks)
	stop()
	chaos.Wait()
	last := r.state()
	m.log, m.size = last.log-first.log, last.size
}

// state is the size of etcd.
type state struct{ log, size float64 }

// state asks the members that run.
func (r *run) state() (s state) {
	for _, endpoint := range r.cluster.Endpoints {
		ctx, cancel := context.WithTimeout(context.Background(), answerTime)
		answer, err := r.admin.Status(ctx, endpoint)
		cancel()
		if err == nil {
			s = state{max(s.log, float64(answer.RaftIndex)), max(s.size, float64(answer.DbSize))}
		}
	}
	return s
}

// settle ends all faults, and waits until each host that is not lost has heard from etcd. The
// administrator releases the blocks of the other hosts.
func (r *run) settle() {
	for i := range members {
		r.cluster.Kill(i)
		r.cluster.Start(i)
	}
	for _, h := range r.hosts {
		h.link.cut.Store(false)
		h.link.killIn.Store(0)
	}
	r.late.Wait()
	for end := time.Now().Add(5 * time.Minute); ; sleep(context.Background(), r.unit()) {
		var open atomic.Int64
		r.each(few, func(h *host) {
			if err := h.settle(); err != nil {
				open.Add(1)
				if time.Now().After(end) {
					r.problem("host %s at the end: %v", h.id, err)
				}
			}
		})
		if open.Load() == 0 || time.Now().After(end) {
			return
		}
	}
}

// settle lets the host hear from etcd, or releases its blocks if the host is lost. It does nothing if it
// has succeeded before.
func (h *host) settle() error {
	if h.settled {
		return nil
	}
	var err error
	if h.lost {
		err = h.r.release(h)
	} else {
		h.stop()
		err = fill(context.Background(), h.stock())
	}
	h.settled = err == nil
	return err
}
