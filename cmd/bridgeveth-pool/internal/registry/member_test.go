package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// member returns a member of a pool that belongs to the test alone.
func member(t *testing.T, kv clientv3.KV, host, boot string) *Member {
	t.Helper()
	return &Member{KV: kv, Prefix: "/" + t.Name(), Host: host, Network: "net", Name: "name-of-" + host, Boot: boot}
}

// pool returns the blocks of a subnet.
func pool(t *testing.T, subnet string, bits int) blocks.Pool {
	t.Helper()
	r, bad := ipam.Range{Subnet: netip.MustParsePrefix(subnet)}.Complete()
	if bad != nil {
		t.Fatal(bad)
	}
	return blocks.Pool{Set: ipam.Set{r}, Bits: bits}
}

// hear calls Hear, and returns the blocks as a text.
func hear(t *testing.T, m *Member) string {
	t.Helper()
	heard, err := m.Hear(etcdtest.Deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, b := range heard.Blocks {
		list = append(list, b.Prefix.String())
	}
	return strings.Join(list, " ")
}

// claim claims a block of a subnet.
func claim(t *testing.T, m *Member, subnet string, bits int) Block {
	t.Helper()
	b, err := m.Claim(etcdtest.Deadline(t), pool(t, subnet, bits).From(m.Host))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMain(m *testing.M) { etcdtest.Main(m) }

func TestMember(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for name, test := range map[string]func(*testing.T, *clientv3.Client){
			"claim all": testClaimAll, "own blocks": testOwnBlocks, "lost answer": testLostAnswer, "late request": testLateRequest,
			"clone": testClone, "fenced": testFenced, "size": testSize, "values": testValues, "one block": testClaimBlock, "etcd away": testAway,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, c)
			})
		}
	})
}

// testClaimAll makes hosts claim all blocks of a pool at the same time.
func testClaimAll(t *testing.T, c *clientv3.Client) {
	const hosts, each = 8, 8
	p := pool(t, "10.1.0.0/24", 30)
	var group sync.WaitGroup
	claimed := make([][]Block, hosts)
	for i := range hosts {
		m := member(t, c, fmt.Sprint("host", i), "boot")
		hear(t, m)
		group.Go(func() {
			for range each {
				b, err := m.Claim(etcdtest.Deadline(t), p.From(m.Host))
				if err != nil {
					t.Error(err)
				}
				claimed[i] = append(claimed[i], b)
			}
		})
	}
	group.Wait()
	owner := map[netip.Prefix]int{}
	for i, list := range claimed {
		for _, b := range list {
			if other, twice := owner[b.Prefix]; twice {
				t.Errorf("hosts %d and %d own %s", other, i, b.Prefix)
			}
			owner[b.Prefix] = i
		}
	}
	m := member(t, c, "late", "boot")
	hear(t, m)
	if _, err := m.Claim(etcdtest.Deadline(t), p.From("late")); !errors.Is(err, ErrFull) || len(owner) != hosts*each {
		t.Errorf("%d blocks have owners: %v, want %v", len(owner), err, ErrFull)
	}
	b := claimed[0][0]
	first := member(t, c, "host0", "boot")
	hear(t, first)
	if err := first.Return(etcdtest.Deadline(t), b); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, m, "10.1.0.0/24", 30); got.Prefix != b.Prefix || got.Revision <= b.Revision {
		t.Errorf("claimed %v, want the returned block %v", got, b)
	}
}

// testClaimBlock claims particular blocks. The error about a block of another host names that host.
func testClaimBlock(t *testing.T, c *clientv3.Client) {
	m, other := member(t, c, "host", "boot"), member(t, c, "other", "boot")
	hear(t, m)
	hear(t, other)
	b := netip.MustParsePrefix("10.1.0.64/26")
	if got, err := m.ClaimBlock(etcdtest.Deadline(t), b); got.Prefix != b || err != nil {
		t.Fatalf("claimed %v, %v", got, err)
	}
	_, err := other.ClaimBlock(etcdtest.Deadline(t), b)
	if want := `block 10.1.0.64/26 belongs to host "name-of-host" (ID host, network net)`; !errors.Is(err, ErrTaken) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	claim(t, other, "10.1.0.0/24", 26) // the refusal is no reason to hear again
	if got := hear(t, m); got != b.String() {
		t.Errorf("the host has %s, want %s", got, b)
	}
}

// testOwnBlocks checks that a host finds its own blocks after a restart and after a boot, and no
// other blocks.
func testOwnBlocks(t *testing.T, c *clientv3.Client) {
	m, other := member(t, c, "host", "boot1"), member(t, c, "host2", "boot")
	network := member(t, c, "host", "boot1")
	network.Network = "net2"
	hear(t, m)
	hear(t, other)
	hear(t, network)
	b := claim(t, m, "10.1.0.0/24", 26)
	claim(t, other, "10.1.0.0/24", 26)
	claim(t, network, "10.1.0.0/24", 26)
	v6 := claim(t, m, "fd00::/64", 122)
	want := b.Prefix.String() + " " + v6.Prefix.String()
	for _, boot := range []string{"boot1", "boot2"} {
		again := member(t, c, "host", boot)
		if got := hear(t, again); got != want {
			t.Errorf("in %s, the host has %q, want %q", boot, got, want)
		}
	}
	if _, err := m.Claim(etcdtest.Deadline(t), pool(t, "10.1.0.0/24", 26).From("host")); !errors.Is(err, ErrUnheard) {
		t.Errorf("a process from before the restart claims: %v, want %v", err, ErrUnheard)
	}
	if err := m.Return(etcdtest.Deadline(t), b); !errors.Is(err, ErrUnheard) {
		t.Errorf("a process from before the restart returns a block: %v, want %v", err, ErrUnheard)
	}
}

// faultyKV changes what happens to transactions that write.
type faultyKV struct {
	clientv3.KV
	commit func(clientv3.Txn) (*clientv3.TxnResponse, error)
}

type faultyTxn struct {
	clientv3.Txn
	kv     *faultyKV
	writes bool
}

var errLost = errors.New("no answer")

func (kv *faultyKV) Txn(ctx context.Context) clientv3.Txn {
	return &faultyTxn{Txn: kv.KV.Txn(context.WithoutCancel(ctx)), kv: kv}
}

func (t *faultyTxn) If(list ...clientv3.Cmp) clientv3.Txn {
	t.Txn, t.writes = t.Txn.If(list...), true
	return t
}

func (t *faultyTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }

func (t *faultyTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *faultyTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.writes && t.kv.commit != nil {
		return t.kv.commit(t.Txn)
	}
	return t.Txn.Commit()
}

// testLostAnswer makes claims and returns of which only the answer is lost.
func testLostAnswer(t *testing.T, c *clientv3.Client) {
	kv := &faultyKV{KV: c}
	m, first := member(t, kv, "host", "boot"), member(t, c, "first", "boot")
	hear(t, first)
	claim(t, first, "10.1.0.0/24", 26)
	hear(t, m)
	p := pool(t, "10.1.0.0/24", 26)
	kv.commit = func(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
		_, err := txn.Commit()
		return nil, errors.Join(err, errLost)
	}
	if _, err := m.Claim(etcdtest.Deadline(t), p.From("host")); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	if _, err := m.Claim(etcdtest.Deadline(t), p.From("host")); !errors.Is(err, ErrUnheard) {
		t.Errorf("a claim after a lost answer: %v, want %v", err, ErrUnheard)
	}
	if _, err := m.Hear(etcdtest.Deadline(t)); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	kv.commit = nil
	heard, err := m.Hear(etcdtest.Deadline(t))
	if err != nil || len(heard.Blocks) != 1 {
		t.Fatalf("heard %v, %v, want the claimed block", heard.Blocks, err)
	}
	kv.commit = func(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
		_, err := txn.Commit()
		return nil, errors.Join(err, errLost)
	}
	if err := m.Return(etcdtest.Deadline(t), heard.Blocks[0]); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	kv.commit = nil
	if got := hear(t, m); got != "" {
		t.Errorf("the host still has %s", got)
	}
}

// testLateRequest delivers a claim and a return only after the member has heard from etcd again.
func testLateRequest(t *testing.T, c *clientv3.Client) {
	kv := &faultyKV{KV: c}
	m := member(t, kv, "host", "boot")
	hear(t, m)
	b := claim(t, m, "10.1.0.0/24", 26)
	free := slices.Values([]netip.Prefix{netip.MustParsePrefix("10.1.1.0/26")})
	var late clientv3.Txn
	for _, step := range []func() error{
		func() error { return m.Return(etcdtest.Deadline(t), b) },
		func() error { _, err := m.Claim(etcdtest.Deadline(t), free); return err },
		func() error { _, err := m.Hear(etcdtest.Deadline(t)); return err },
	} {
		kv.commit = func(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
			late = txn
			return nil, errLost
		}
		if err := step(); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		kv.commit = nil
		before := hear(t, m)
		if answer, err := late.Commit(); err != nil || answer.Succeeded {
			t.Errorf("the late request succeeded: %v", err)
		}
		if got := hear(t, m); got != before || got != b.Prefix.String() {
			t.Errorf("the host has %q, want %q", got, b.Prefix)
		}
	}
}

// testClone checks that etcd refuses the clone of a running host, and the original of a clone that
// was not refused.
func testClone(t *testing.T, c *clientv3.Client) {
	original, clone := member(t, c, "host", "boot1"), member(t, c, "host", "boot2")
	hear(t, original)
	lease, err := c.Grant(etcdtest.Deadline(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	if err := original.StayAlive(etcdtest.Deadline(t), lease.ID); err != nil {
		t.Fatal(err)
	}
	_, err = clone.Hear(etcdtest.Deadline(t))
	if !errors.Is(err, ErrClone) || !strings.Contains(err.Error(), `boot boot1 of host "name-of-host", and this is boot boot2`) {
		t.Errorf("clone: %v, want %v", err, ErrClone)
	}
	hear(t, original)
	if _, err := c.Revoke(etcdtest.Deadline(t), lease.ID); err != nil {
		t.Fatal(err)
	}
	hear(t, clone)
	if _, err := original.Hear(etcdtest.Deadline(t)); !errors.Is(err, ErrClone) {
		t.Errorf("original: %v, want %v", err, ErrClone)
	}
}

// testFenced checks that a fenced host gets neither a record nor a block.
func testFenced(t *testing.T, c *clientv3.Client) {
	m := member(t, c, "host", "boot")
	hear(t, m)
	_, err := c.Txn(etcdtest.Deadline(t)).Then(clientv3.OpDelete(m.key("hosts")), clientv3.OpPut(m.key("fenced"), `{"version":1}`)).Commit()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Claim(etcdtest.Deadline(t), pool(t, "10.1.0.0/24", 26).From("host")); !errors.Is(err, ErrUnheard) {
		t.Errorf("claim: %v, want %v", err, ErrUnheard)
	}
	if _, err := m.Hear(etcdtest.Deadline(t)); !errors.Is(err, ErrFenced) {
		t.Errorf("hear: %v, want %v", err, ErrFenced)
	}
}

// testSize checks that hosts with different block sizes cannot share a pool.
func testSize(t *testing.T, c *clientv3.Client) {
	m, other := member(t, c, "host", "boot"), member(t, c, "other", "boot")
	hear(t, m)
	hear(t, other)
	claim(t, m, "10.1.0.0/24", 26)
	_, err := other.Claim(etcdtest.Deadline(t), pool(t, "10.1.0.0/24", 27).From("other"))
	want := `size/ipv4 is {"version":1,"block":26}, and this host's value is {"version":1,"block":27}; configure the same size on all hosts`
	if !errors.Is(err, ErrSize) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// testValues checks the keys and values of docs/pool.md, and the errors about other values.
func testValues(t *testing.T, c *clientv3.Client) {
	m := member(t, c, "host", "boot")
	hear(t, m)
	b := claim(t, m, "10.1.0.0/26", 26)
	answer, err := c.Get(etcdtest.Deadline(t), m.Prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, kv := range answer.Kvs {
		value, _, _ := strings.Cut(string(kv.Value), `,"token"`)
		value, _, _ = strings.Cut(value, `,"time"`)
		got = append(got, strings.TrimPrefix(string(kv.Key), m.Prefix)+" "+value)
	}
	want := []string{
		`/v1/blocks/10.1.0.0/26 {"version":1,"host":"host","network":"net"}`, `/v1/hosts/host/net {"version":1,"name":"name-of-host","boot":"boot"`,
		`/v1/owned/host/net/10.1.0.0/26 {"version":1`, `/v1/size/ipv4 {"version":1,"block":26}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("keys:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for value, want := range map[string]string{
		`{"version":2}`: "a later release wrote the value", "soup": `"soup" is not a value of the pool`, "{}": "is not a value of the pool",
	} {
		for _, key := range []string{m.key("hosts"), m.key("owned") + "/" + b.Prefix.String()} {
			before, err := c.Get(etcdtest.Deadline(t), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Put(etcdtest.Deadline(t), key, value); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Hear(etcdtest.Deadline(t)); err == nil || !strings.Contains(err.Error(), key+": ") || !strings.Contains(err.Error(), want) {
				t.Errorf("value %s of %s: %v, want %s", value, key, err, want)
			}
			if _, err := c.Put(etcdtest.Deadline(t), key, string(before.Kvs[0].Value)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// testAway checks that Hear ends with its context if no etcd answers.
func testAway(t *testing.T, _ *clientv3.Client) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(etcdtest.Deadline(t), 100e6)
	defer cancel()
	if _, err := member(t, c, "host", "boot").Hear(ctx); err == nil || !strings.Contains(err.Error(), "read record of this host: ") {
		t.Errorf("without etcd: %v", err)
	}
}
