package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// release ends the lease of a container.
func release(t *testing.T, s *Stock, container string) {
	t.Helper()
	err := s.withStore(func(store *ipam.Store) error {
		return store.Release(ipam.Attachment{Network: "net", Container: container, Interface: "eth0"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pass looks at the stock as the service does, and lets time pass for it.
func pass(t *testing.T, s *Stock, d time.Duration) {
	t.Helper()
	if _, _, _, err := s.Low(); err != nil {
		t.Fatal(err)
	}
	for b := range s.emptySince {
		s.emptySince[b] -= d
	}
}

// owned returns the blocks of the host in etcd as a text. The keys of the blocks must agree with the
// host's list.
func owned(t *testing.T, c *clientv3.Client, s *Stock) string {
	t.Helper()
	m := s.Member
	answer, err := c.Get(etcdtest.Deadline(t), m.Prefix+"/v1/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	var list, keys []string
	for _, kv := range answer.Kvs {
		key := strings.TrimPrefix(string(kv.Key), m.Prefix+"/v1/")
		if b, own := strings.CutPrefix(key, "owned/"+m.Host+"/net/"); own {
			list = append(list, b)
		}
		if b, block := strings.CutPrefix(key, "blocks/"); block && strings.Contains(string(kv.Value), `"host":"`+m.Host+`"`) {
			keys = append(keys, b)
		}
	}
	slices.Sort(list)
	if slices.Sort(keys); !slices.Equal(list, keys) {
		t.Errorf("%s: the list has %v, and the blocks' keys %v", m.Host, list, keys)
	}
	return strings.Join(list, " ")
}

// threeEmpty fills a stock with a block that has a lease, and with three other blocks: two more than
// the stock needs.
func threeEmpty(t *testing.T, s *Stock) *Stock {
	t.Helper()
	s.Spare = 3
	fill(t, s)
	if _, err := reserve(t, s, "first"); err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	s.Spare = 1
	return s
}

func TestGiveBack(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for name, test := range map[string]func(*testing.T, *clientv3.Client){"time": testReturnTime, "lease": testReturnLease,
			"lost answer": testReturnLost, "no range": testReturnOutside, "no stock": testReturnAll} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, c)
			})
		}
	})
}

// testReturnTime checks that blocks go back only after returnAfter without a lease, that the stock
// stays, and that a process that has just started returns nothing.
func testReturnTime(t *testing.T, c *clientv3.Client) {
	s := threeEmpty(t, stock(t, c, "a"))
	count := func(want int) {
		t.Helper()
		if got := owned(t, c, s); len(strings.Fields(got)) != want || got != strings.Join(sorted(subnets(t, s)), " ") {
			t.Errorf("etcd has %q, the store %q, want %d blocks", got, subnets(t, s), want)
		}
	}
	fill(t, s)
	count(4)
	pass(t, s, returnAfter-time.Minute)
	fill(t, s)
	count(4)
	started := &Stock{Member: s.Member, Pools: s.Pools, Spare: s.Spare, Dir: s.Dir}
	fill(t, started)
	count(4)
	// Eight containers need two more blocks. The time of these blocks begins again.
	for i := range 8 {
		if _, err := reserve(t, s, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	pass(t, s, 0)
	for i := range 8 {
		release(t, s, fmt.Sprint(i))
	}
	pass(t, s, time.Minute)
	fill(t, s)
	count(3)
	pass(t, s, returnAfter)
	fill(t, s)
	count(2)
	pass(t, s, returnAfter)
	fill(t, s)
	count(2) // one block has a lease, and one is the stock
	release(t, s, "first")
	pass(t, s, returnAfter)
	fill(t, s)
	count(1)
}

func sorted(text string) []string { return slices.Sorted(slices.Values(strings.Fields(text))) }

// hookedKV calls a function ahead of each transaction that deletes a key.
type hookedKV struct {
	clientv3.KV
	before func()
	lost   bool // the answer to such a transaction is lost
}

type hookedTxn struct {
	clientv3.Txn
	kv      *hookedKV
	deletes bool
}

func (kv *hookedKV) Txn(ctx context.Context) clientv3.Txn {
	return &hookedTxn{kv.KV.Txn(ctx), kv, false}
}

func (t *hookedTxn) If(list ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(list...); return t }

func (t *hookedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.Txn, t.deletes = t.Txn.Then(ops...), slices.ContainsFunc(ops, clientv3.Op.IsDelete)
	return t
}

func (t *hookedTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *hookedTxn) Commit() (*clientv3.TxnResponse, error) {
	if !t.deletes {
		return t.Txn.Commit()
	}
	t.kv.before()
	answer, err := t.Txn.Commit()
	if t.kv.lost {
		return nil, errors.Join(err, errLost)
	}
	return answer, err
}

var errLost = errors.New("no answer")

// testReturnLease checks that a block that gets a lease before the store drops it stays, and that
// ADD gets no address of a block that is on its way back.
func testReturnLease(t *testing.T, c *clientv3.Client) {
	kv := &hookedKV{KV: c}
	s := threeEmpty(t, stock(t, kv, "a"))
	leased := map[string]bool{}
	kv.before = func() {
		for i := range 20 { // more than all blocks have
			if address, err := reserve(t, s, fmt.Sprint(len(leased), "-", i)); err == nil {
				leased[address] = true
			}
		}
	}
	pass(t, s, returnAfter)
	fill(t, s) // it returns one block; the containers then take all addresses of the others
	own := owned(t, c, s)
	other := stock(t, c, "b")
	other.Spare = 20
	if err := other.Fill(etcdtest.Deadline(t)); !errors.Is(err, registry.ErrFull) {
		t.Error(err)
	}
	for _, b := range strings.Fields(subnets(t, other)) {
		if strings.Contains(own, b) {
			t.Errorf("two hosts own %s", b)
		}
	}
	for i := range 64 {
		if address, err := reserve(t, other, fmt.Sprint(i)); err == nil && leased[address] {
			t.Errorf("two hosts have leased %s", address)
		}
	}
	if len(leased) < 8 || len(strings.Fields(own)) < 3 {
		t.Errorf("%d addresses are leased, and the host owns %s", len(leased), own)
	}
}

// testReturnLost checks that the next Fill finds out what etcd has done if the request or its answer
// is lost.
func testReturnLost(t *testing.T, c *clientv3.Client) {
	kv := &hookedKV{KV: c, lost: true}
	s := threeEmpty(t, stock(t, kv, "a"))
	before := owned(t, c, s)
	ctx, cancel := context.WithCancel(etcdtest.Deadline(t))
	kv.before = cancel // the request does not arrive
	pass(t, s, returnAfter)
	if err := s.Fill(ctx); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	if got := sorted(subnets(t, s)); len(got) != 3 || owned(t, c, s) != before {
		t.Errorf("the store has %s, want 3 blocks of %s", got, before)
	}
	s.emptySince = nil // the process was killed
	fill(t, s)
	if got := strings.Join(sorted(subnets(t, s)), " "); got != before {
		t.Errorf("the store has %s, want %s", got, before)
	}

	kv.before = func() {}
	pass(t, s, returnAfter)
	if err := s.Fill(etcdtest.Deadline(t)); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	s.emptySince = nil
	after := owned(t, c, s)
	fill(t, s)
	if got := strings.Join(sorted(subnets(t, s)), " "); got != after || len(strings.Fields(after)) != 3 {
		t.Errorf("the store has %s, etcd %s, want 3 blocks", got, after)
	}
}

// testReturnAll checks that a host without a stock, as for a network without a configuration, returns all
// blocks without a lease, and no other block.
func testReturnAll(t *testing.T, c *clientv3.Client) {
	s := threeEmpty(t, stock(t, c, "a"))
	s.Spare = 0
	check := func(d time.Duration, want int) {
		t.Helper()
		fill(t, s)
		pass(t, s, d)
		fill(t, s)
		if got := owned(t, c, s); got != strings.Join(sorted(subnets(t, s)), " ") || len(strings.Fields(got)) != want {
			t.Errorf("etcd has %q, the store %q, want %d blocks", got, subnets(t, s), want)
		}
	}
	check(returnAfter-time.Minute, 4)
	check(time.Minute, 1)
	release(t, s, "first")
	check(returnAfter-time.Minute, 1)
	check(time.Minute, 0)
}

// testReturnOutside checks that a host returns blocks that no range contains any more.
func testReturnOutside(t *testing.T, c *clientv3.Client) {
	s := threeEmpty(t, stock(t, c, "a"))
	release(t, s, "first")
	s.Pools, s.Spare = nil, 1
	fill(t, s)
	pass(t, s, returnAfter)
	fill(t, s)
	if got := owned(t, c, s) + subnets(t, s); got != "" {
		t.Errorf("the host still has %s", got)
	}
}
