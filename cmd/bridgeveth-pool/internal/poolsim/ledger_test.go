package poolsim

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// ledger says which container has an address, over all hosts.
type ledger struct {
	mu     sync.Mutex
	holder map[netip.Addr]string
	peak   int // greatest number of addresses at the same time, before check hands out all
}

// add records that a container has an address. It returns the container that has the address already,
// or "".
func (l *ledger) add(address netip.Addr, container string) (other string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other = l.holder[address]
	l.holder[address] = container
	return other
}

// count updates the peak.
func (l *ledger) count() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peak = max(l.peak, len(l.holder))
}

// remove records that nobody has an address.
func (l *ledger) remove(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holder, address)
}

// claims are all blocks that etcd has given to hosts. They come from a watch of etcd.
type claims struct {
	mu       sync.Mutex
	revision int64
	owner    map[string]string     // identity of a host, by key of a block
	given    map[ipam.Block]string // identity of the host, by each claim ever made
	writes   map[string]int        // by kind of key
	problem  func(format string, args ...any)
}

// follow reads all changes below the prefix until ctx ends. It checks that no block gets a second owner.
func (c *claims) follow(ctx context.Context, client *clientv3.Client, prefix string) {
	for answer := range client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(c.seen()+1)) {
		if answer.Err() != nil {
			return // follow is called again
		}
		c.mu.Lock()
		for _, event := range answer.Events {
			c.apply(event, strings.TrimPrefix(string(event.Kv.Key), prefix))
			c.revision = event.Kv.ModRevision
		}
		c.mu.Unlock()
	}
}

// apply records one change.
func (c *claims) apply(event *clientv3.Event, key string) {
	kind, rest, _ := strings.Cut(key, "/")
	if event.Type == clientv3.EventTypeDelete {
		c.writes["deleted "+kind]++
		if kind == "blocks" {
			delete(c.owner, rest)
		}
		return
	}
	c.writes[kind]++
	if kind != "blocks" {
		return
	}
	var value struct{ Host string }
	block, err := netip.ParsePrefix(rest)
	if err == nil {
		err = json.Unmarshal(event.Kv.Value, &value)
	}
	if other := c.owner[rest]; err != nil || other != "" {
		c.problem("etcd gave block %s of host %q to host %q: %v", rest, other, value.Host, err)
	}
	c.owner[rest] = value.Host
	c.given[ipam.Block{Subnet: block, Revision: event.Kv.ModRevision}] = value.Host
}

// seen returns the revision of the last change.
func (c *claims) seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// host returns the identity of the host to which etcd has given a block by one claim.
func (c *claims) host(b ipam.Block) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.given[b]
}

// count returns how many keys of a kind were written.
func (c *claims) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes[kind]
}

// problem records something that must not happen.
func (r *run) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// count adds 1 to a number of the report.
func (r *run) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}
