package service

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

func TestMain(m *testing.M) { etcdtest.Main(m) }

// open returns the session of a host. Each block of its pool has four addresses.
func open(t *testing.T, endpoints []string, id string) *Session {
	t.Helper()
	list, err := json.Marshal(endpoints)
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"name": "net", "ipam": {"subnet": "10.1.0.0/16", "pool": {"etcd": {"endpoints": %s}, "block": 30}}}`, list)
	c, err := ipamconfig.Read(&skel.CmdArgs{StdinData: []byte(conf)})
	if err != nil {
		t.Fatal(err)
	}
	c.DataDir = t.TempDir()
	s := Open(c, host.Host{ID: id, Name: id, Boot: "boot"})
	t.Cleanup(s.Close)
	return s
}

// claimer is a host that claims one block after the other.
type claimer struct {
	*Session
	claims atomic.Int32
}

// run claims blocks until ctx ends. Only a few claims in a row may fail.
func (c *claimer) run(ctx context.Context, t *testing.T) {
	const attempts = 3
	for failed := 0; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if err := c.Fill(context.Background()); err == nil {
			failed = 0
			c.claims.Add(1)
			c.stock.Spare++
		} else if failed++; failed == attempts {
			t.Errorf("after %d attempts: %v", attempts, err)
			return
		}
	}
}

// TestMembers lets hosts claim blocks, while one member of etcd after the other is killed, or is cut off from the other
// members, or does not answer at all. The hosts must go on, and no block may be lost.
func TestMembers(t *testing.T) {
	t.Parallel()
	etcdtest.EachProgram(t, func(t *testing.T, program string, port int) {
		t.Parallel()
		c := etcdtest.StartCluster(t, etcdtest.Options{Program: program, Port: port + 10, Members: 3, Apart: true})
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		hosts := []*claimer{{Session: open(t, c.Endpoints, "a")}, {Session: open(t, c.Endpoints, "b")}}
		var group sync.WaitGroup
		for _, h := range hosts {
			group.Go(func() { h.run(ctx, t) })
		}
		// more waits until each host has claimed more blocks.
		more := func(when string) {
			for _, h := range hosts {
				begin := time.Now()
				for want := h.claims.Load() + 3; h.claims.Load() < want && !t.Failed(); {
					time.Sleep(10 * time.Millisecond)
				}
				t.Logf("%s: host %s goes on after %s", when, h.stock.Member.Host, time.Since(begin))
			}
		}
		more("all members run")
		for _, fault := range []struct {
			name       string
			leads      bool
			begin, end func(int)
		}{
			{"killed", false, c.Kill, c.Start}, {"killed", true, c.Kill, c.Start}, {"cut off", false, c.Cut, c.Join}, {"unplugged", true, c.Unplug, c.Plug},
		} {
			i := c.Leader()
			if !fault.leads {
				i = (i + 1) % len(c.Endpoints)
			}
			fault.begin(i)
			more(fmt.Sprintf("%s, leads: %t", fault.name, fault.leads))
			fault.end(i)
			c.Wait()
		}
		stop()
		group.Wait()
		checkStores(t, c.Client(), hosts)
	})
}

// checkStores compares the stores of hosts with the keys in etcd.
func checkStores(t *testing.T, c *clientv3.Client, hosts []*claimer) {
	t.Helper()
	all := 0
	for _, h := range hosts {
		_, list, _, err := h.stock.Low()
		if err != nil {
			t.Fatal(err)
		}
		owned, err := c.Get(etcdtest.Deadline(t), "/bridgeveth/v1/owned/"+h.stock.Member.Host+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		all += len(list)
		for _, b := range list {
			suffix := "/" + b.Subnet.String()
			if !slices.ContainsFunc(owned.Kvs, func(kv *mvccpb.KeyValue) bool {
				return strings.HasSuffix(string(kv.Key), suffix) && kv.CreateRevision == b.Revision
			}) {
				t.Errorf("host %s has block %s, and etcd does not know", h.stock.Member.Host, b.Subnet)
			}
		}
		if len(list) != len(owned.Kvs) {
			t.Errorf("host %s has %d blocks, and etcd %d", h.stock.Member.Host, len(list), len(owned.Kvs))
		}
	}
	blocks, err := c.Get(etcdtest.Deadline(t), "/bridgeveth/v1/blocks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || int(blocks.Count) != all {
		t.Errorf("etcd has %v blocks, %v, want the %d of all hosts", blocks, err, all)
	}
}
