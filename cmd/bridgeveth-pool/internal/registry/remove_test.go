package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// left returns the keys of a member's pool, without the key of the block size.
func left(t *testing.T, c *clientv3.Client, m *Member) string {
	t.Helper()
	answer, err := c.Get(etcdtest.Deadline(t), m.Prefix+"/v1/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, kv := range answer.Kvs {
		if key := strings.TrimPrefix(string(kv.Key), m.Prefix+"/v1/"); key != "size/ipv4" {
			list = append(list, key)
		}
	}
	return strings.Join(list, " ")
}

// failing fails at one of the transactions: before etcd gets it, or after.
type failing struct {
	clientv3.KV
	at    int
	after bool
}

type failingTxn struct {
	clientv3.Txn
	of *failing
}

var errFailing = errors.New("killed")

func (f *failing) Txn(ctx context.Context) clientv3.Txn { return &failingTxn{f.KV.Txn(ctx), f} }

func (t *failingTxn) If(c ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(c...)
	return t
}
func (t *failingTxn) Then(o ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Then(o...)
	return t
}

func (t *failingTxn) Commit() (*clientv3.TxnResponse, error) {
	t.of.at--
	if t.of.at == 0 && !t.of.after {
		return nil, errFailing
	}
	answer, err := t.Txn.Commit()
	if t.of.at == 0 && err == nil {
		err = errFailing
	}
	return answer, err
}

func TestRelease(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		ctx := etcdtest.Deadline(t)
		for name, test := range map[string]func(t *testing.T, m *Member){
			"alive": func(t *testing.T, m *Member) {
				lease, err := c.Grant(ctx, 60)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.StayAlive(ctx, lease.ID); err != nil {
					t.Fatal(err)
				}
				before := left(t, c, m)
				if _, err := Release(ctx, c, m.Prefix, Owner{"host", "net"}); !errors.Is(err, ErrAlive) || !strings.Contains(err.Error(), "; stop bridgeveth-pool on that host") {
					t.Errorf("release: %v", err)
				}
				if _, _, err := Forget(ctx, c, m.Prefix, Owner{"host", "net"}); !errors.Is(err, ErrAlive) {
					t.Errorf("forget: %v", err)
				}
				if got := left(t, c, m); got != before {
					t.Errorf("keys %s", got)
				}
			},
			"late claim": func(t *testing.T, m *Member) {
				if n, err := Release(ctx, c, m.Prefix, Owner{"host", "net"}); n != 60 || err != nil {
					t.Fatalf("%d blocks, %v", n, err)
				}
				if _, err := m.Claim(ctx, pool(t, "10.1.0.0/22", 28).From("x")); !errors.Is(err, ErrUnheard) {
					t.Errorf("a claim from before the release: %v", err)
				}
				if got := left(t, c, m); got != "" {
					t.Errorf("keys %s", got)
				}
				if got := hear(t, m); got != "" {
					t.Errorf("after the release, the host has %s", got)
				}
			},
			"block of another host": func(t *testing.T, m *Member) {
				answer, err := c.Get(ctx, m.ownedPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(1))
				if err != nil {
					t.Fatal(err)
				}
				key := m.Prefix + "/v1/blocks/" + strings.TrimPrefix(string(answer.Kvs[0].Key), m.ownedPrefix())
				if _, err := c.Put(ctx, key, encode(blockValue{format, "other", "net"})); err != nil {
					t.Fatal(err)
				}
				if n, err := Release(ctx, c, m.Prefix, Owner{"host", "net"}); n != 59 || err != nil {
					t.Errorf("%d blocks, %v", n, err)
				}
				if got := left(t, c, m); m.Prefix+"/v1/"+got != key {
					t.Errorf("keys %s", got)
				}
			},
		} {
			t.Run(name, func(t *testing.T) { test(t, full(t, c)) })
		}
	})
}

// full returns a member that owns 60 blocks, more than Release takes in one transaction.
func full(t *testing.T, c *clientv3.Client) *Member {
	t.Helper()
	m := member(t, c, "host", "boot")
	hear(t, m)
	count := 0
	for b := range pool(t, "10.1.0.0/22", 28).From("x") {
		if _, err := m.claim(etcdtest.Deadline(t), b); err != nil {
			t.Fatal(err)
		}
		if count++; count == 60 {
			break
		}
	}
	return m
}

// TestReleaseKilled ends Release at each of its transactions, and once more after the host has heard. No
// block may be lost, and the next Release takes all blocks.
func TestReleaseKilled(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 5; at++ {
				t.Run(fmt.Sprint(at, after), func(t *testing.T) {
					ctx := etcdtest.Deadline(t)
					m := full(t, c)
					of := Owner{"host", "net"}
					if _, err := Release(ctx, &failing{c, at, after}, m.Prefix, of); !errors.Is(err, errFailing) {
						t.Fatal(err)
					}
					s, err := ReadSurvey(ctx, c, m.Prefix)
					if err != nil {
						t.Fatal(err)
					}
					for b, owner := range s.Owners {
						if state := s.States[owner]; owner != of || !state.Recorded || !state.Owns(b) {
							t.Fatalf("block %s of %v", b, owner)
						}
					}
					owned := 0
					if state := s.States[of]; state != nil {
						owned = len(state.Blocks)
					}
					if len(s.Owners) != owned {
						t.Fatalf("%d blocks, and %d in the list of the host", len(s.Owners), owned)
					}
					if n, err := Release(ctx, c, m.Prefix, of); n != owned || err != nil || left(t, c, m) != "" {
						t.Errorf("%d blocks, %v, keys %s", n, err, left(t, c, m))
					}
				})
			}
		}
	})
}

// hearing lets the host hear before one of the transactions.
type hearing struct {
	clientv3.KV
	at   int
	hear func()
}

func (h *hearing) Txn(ctx context.Context) clientv3.Txn {
	if h.at--; h.at == 0 {
		h.hear()
	}
	return h.KV.Txn(ctx)
}

// TestReleaseRefused lets the host hear while Release runs. Release must take no block after this.
func TestReleaseRefused(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for at := 2; at <= 4; at++ {
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				m := full(t, c)
				heard := ""
				_, err := Release(etcdtest.Deadline(t), &hearing{c, at, func() { heard = hear(t, m) }}, m.Prefix, Owner{"host", "net"})
				if !errors.Is(err, errMeanwhile) {
					t.Error(err)
				}
				if again := hear(t, m); again != heard {
					t.Errorf("the host has heard of %s, and now has %s", heard, again)
				}
			})
		}
	})
}

// TestForget deletes the record of a host. Its blocks stay until the grace time is over. Then a host that
// finds no other block gets them, and the host gets a new record.
func TestForget(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		ctx := etcdtest.Deadline(t)
		for name, end := range map[string]func(t *testing.T, m, other *Member){
			"another host claims": func(t *testing.T, _, other *Member) { claim(t, other, "10.1.0.0/27", 28) },
			"another host claims this block": func(t *testing.T, _, other *Member) {
				if _, err := other.ClaimBlock(ctx, pool(t, "10.1.0.0/28", 28).Set[0].Subnet); err != nil {
					t.Error(err)
				}
			},
			"the host hears": func(t *testing.T, m, _ *Member) {
				if got := hear(t, m); got != "" {
					t.Errorf("the host has %s", got)
				}
			},
			"the command runs again": func(t *testing.T, m, _ *Member) {
				if left, n, err := Forget(ctx, c, m.Prefix, Owner{"host", "net"}); left != 0 || n != 2 || err != nil {
					t.Errorf("%s, %d blocks, %v", left, n, err)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				m, other := member(t, c, "host", "boot"), member(t, c, "other", "boot")
				hear(t, m)
				hear(t, other)
				claim(t, m, "10.1.0.0/27", 28)
				claim(t, m, "10.1.0.0/27", 28)
				for range 2 {
					if rest, _, err := Forget(ctx, c, m.Prefix, Owner{"host", "net"}); err != nil || rest > graceTime || rest < graceTime-time.Minute {
						t.Fatalf("%s, %v", rest, err)
					}
				}
				if _, err := m.Hear(ctx); !errors.Is(err, ErrFenced) {
					t.Errorf("the host hears during the grace time: %v", err)
				}
				if _, err := other.Claim(ctx, pool(t, "10.1.0.0/27", 28).From("x")); !errors.Is(err, ErrFull) {
					t.Errorf("claim during the grace time: %v", err)
				}
				if _, err := Release(ctx, c, m.Prefix, Owner{"host", "net"}); !errors.Is(err, ErrFenced) {
					t.Errorf("release during the grace time: %v", err)
				}
				endLease(t, c, m)
				end(t, m, other)
				if got := left(t, c, m); strings.Contains(got, "fenced/") || strings.Contains(got, "owned/host/") {
					t.Errorf("keys %s", got)
				}
			})
		}
	})
}

// endLease ends the etcd lease of the grace time.
func endLease(t *testing.T, c *clientv3.Client, m *Member) {
	t.Helper()
	grace, err := c.Get(etcdtest.Deadline(t), m.key("grace"))
	if err != nil || len(grace.Kvs) != 1 {
		t.Fatalf("%v, %v", grace, err)
	}
	if _, err := c.Revoke(etcdtest.Deadline(t), clientv3.LeaseID(grace.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
}

// TestForgetKilled ends Forget after each of its transactions. The blocks must stay until the grace time has
// begun and is over.
func TestForgetKilled(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		ctx := etcdtest.Deadline(t)
		for at := 1; at <= 3; at++ {
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				m, other := member(t, c, "host", "boot"), member(t, c, "other", "boot")
				hear(t, m)
				hear(t, other)
				claim(t, m, "10.1.0.0/28", 28)
				broken := *c
				broken.KV = &failing{c.KV, at, true}
				if _, _, err := Forget(ctx, &broken, m.Prefix, Owner{"host", "net"}); !errors.Is(err, errFailing) {
					t.Fatal(err)
				}
				if _, err := other.Claim(ctx, pool(t, "10.1.0.0/28", 28).From("x")); !errors.Is(err, ErrFull) {
					t.Errorf("claim: %v", err)
				}
				if rest, _, err := Forget(ctx, c, m.Prefix, Owner{"host", "net"}); err != nil || rest < graceTime-time.Minute {
					t.Errorf("%s, %v", rest, err)
				}
				endLease(t, c, m)
				claim(t, other, "10.1.0.0/28", 28)
			})
		}
	})
}
