package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// do sends requests to etcd.
func (p *pair) do(ops ...clientv3.Op) {
	p.t.Helper()
	if _, err := p.etcd.Txn(etcdtest.Deadline(p.t)).Then(ops...).Commit(); err != nil {
		p.t.Fatal(err)
	}
}

// key returns a key of the pool.
func (p *pair) key(format string, args ...any) string {
	return p.a.Member.Prefix + "/v1/" + fmt.Sprintf(format, args...)
}

// check runs Check on host a, and returns the output.
func (p *pair) check() (string, error) {
	p.t.Helper()
	var out bytes.Buffer
	err := Check(etcdtest.Deadline(p.t), []*ipamconfig.Config{p.conf}, p.self, &out)
	return out.String(), err
}

// blocks returns the blocks in the store of host a.
func (p *pair) blocks() (list []ipam.Block) {
	p.t.Helper()
	p.store(func(s *ipam.Store) (err error) {
		_, list, _, err = s.Blocks("net")
		return err
	})
	return list
}

// setBlocks writes blocks into the store of host a, as if etcd had been heard some time ago.
func (p *pair) setBlocks(ago time.Duration, list []ipam.Block) {
	p.t.Helper()
	p.store(func(s *ipam.Store) error {
		now, err := ipam.SinceBoot()
		return errors.Join(err, s.SetBlocks("net", now-ago, list))
	})
}

// contradictions make one contradiction each. In the wanted text, A and B are the blocks of the hosts a and b.
var contradictions = []struct {
	name string
	make func(p *pair, a, b netip.Prefix)
	want []string // parts of the output
}{
	{"block of another host in the store", func(p *pair, a, b netip.Prefix) {
		p.do(clientv3.OpPut(p.key("blocks/%s", a), fmt.Sprintf(`{"version":1,"host":%q,"network":"net"}`, p.b.Member.Host)), clientv3.OpPut(p.key("owned/%s/net/%s", p.b.Member.Host, a), `{"version":1}`),
			clientv3.OpDelete(p.key("owned/%s/net/%s", p.a.Member.Host, a)))
		p.lease("c1")
	}, []string{"network net: block A is in the store of this host, but belongs to host node-b (BBB), network net in etcd: both hosts can give out the same addresses\n  fix: bridgeveth-pool claim; then run bvctl pool check again\n",
		"is leased to container c1, interface eth0, but block A belongs to host node-b (BBB), network net: that host can give out the same address\n  fix: delete the container and create it again; if it does not run any more, bvctl leases release --network net --address 10.1.0."}},
	{"block without an owner in the store", func(p *pair, a, _ netip.Prefix) {
		p.lease("c1")
		p.do(clientv3.OpDelete(p.key("blocks/%s", a)), clientv3.OpDelete(p.key("owned/%s/net/%s", p.a.Member.Host, a)))
	}, []string{"network net: block A is in the store of this host, but has no owner in etcd: another host can claim it", "but block A has no owner: another host can claim it"}},
	{"lease outside the blocks", func(p *pair, a, _ netip.Prefix) {
		p.lease("c1")
		p.setBlocks(0, nil)
		p.do(clientv3.OpDelete(p.key("blocks/%s", a)), clientv3.OpDelete(p.key("owned/%s/net/%s", p.a.Member.Host, a)))
	}, []string{"but block A has no owner: another host can claim it, and give out the same address\n  fix: bridgeveth-pool claim, which claims the block\n"}},
	{"block that the store lacks", func(p *pair, _, _ netip.Prefix) {
		p.setBlocks(0, nil)
	}, []string{"network net: block A belongs to this host in etcd, but is not in its store: no container gets an address of the block\n  fix: none needed if the service runs: it adds the block within a minute; otherwise bridgeveth-pool claim\n"}},
	{"block without a list", func(p *pair, _, b netip.Prefix) {
		p.do(clientv3.OpDelete(p.key("owned/%s/net/%s", p.b.Member.Host, b)))
	}, []string{"block B belongs to host node-b (BBB), network net, but is not in the list of that host: no host gives out its addresses\n  fix: make sure that host node-b (BBB), network net has no container with an address of the block (run bvctl pool check there), then etcdctl del P/v1/blocks/B\n"}},
	{"list without the block", func(p *pair, _, b netip.Prefix) {
		p.do(clientv3.OpDelete(p.key("blocks/%s", b)))
	}, []string{"host node-b (BBB), network net has block B in its list, but the block has no owner: another host can claim it, and give out the same addresses\n  fix: etcdctl del P/v1/owned/BBB/net/B; run bridgeveth-pool claim on host node-b (BBB), network net; then"}},
	{"no record", func(p *pair, _, _ netip.Prefix) {
		p.do(clientv3.OpDelete(p.key("hosts/%s/net", p.b.Member.Host)))
	}, []string{"host BBB, network net owns 1 blocks and has no record in etcd: the blocks are lost\n"}},
	{"configured block size", func(p *pair, _, _ netip.Prefix) { p.conf.Pool.Block = 30 }, []string{
		"network net: ipam.pool.block is 30, and the blocks of the pool are /29: this host can claim no block\n  fix: set ipam.pool.block to 29, as on the other hosts\n"}},
	{"size of a block", func(p *pair, _, _ netip.Prefix) {
		p.do(clientv3.OpPut(p.key("blocks/10.1.0.0/27"), fmt.Sprintf(`{"version":1,"host":%q,"network":"net"}`, p.b.Member.Host)), clientv3.OpPut(p.key("owned/%s/net/10.1.0.0/27", p.b.Member.Host), `{"version":1}`))
	}, []string{"block 10.1.0.0/27 of host node-b (BBB), network net is not a /29, as the other blocks of the pool: two hosts can own the same addresses\n"}},
	{"no size", func(p *pair, _, _ netip.Prefix) { p.do(clientv3.OpDelete(p.key("size/ipv4"))) }, []string{
		"etcd key P/v1/size/ipv4 is missing: a host with another block size can claim addresses of other hosts\n  fix: etcdctl put P/v1/size/ipv4 '{\"version\":1,\"block\":29}'\n"}},
	{"format of a value", func(p *pair, _, b netip.Prefix) { p.do(clientv3.OpPut(p.key("blocks/10.1.0.56/29"), `{"version":7}`)) }, []string{
		"etcd key P/v1/blocks/10.1.0.56/29: a later release wrote the value\n  fix: use that release (its version is 7, ours 1)\n"}},
	{"format of the keys", func(p *pair, _, _ netip.Prefix) { p.do(clientv3.OpPut(p.a.Member.Prefix+"/v2/x", "")) }, []string{
		"etcd key P/v2/x: a later release wrote the value\n  fix: use that release\n"}},
	{"another machine", func(p *pair, _, _ netip.Prefix) { p.self.Boot = "other" }, []string{
		"network net: etcd has a record of this host of boot boot, and this is boot other: another machine has the identity of this host\n"}},
	{"deleted record", func(p *pair, _, _ netip.Prefix) {
		p.do(clientv3.OpDelete(p.key("hosts/%s/net", p.a.Member.Host)), clientv3.OpPut(p.key("fenced/%s/net", p.a.Member.Host), `{"version":1}`))
	}, []string{"network net: the record of this host was deleted: it gives out no address\n", "host AAA, network net is forgotten, and its grace time has not begun: its blocks are lost\n  fix: bvctl pool forget --host AAA\n"}},
	{"not heard", func(p *pair, a, _ netip.Prefix) {
		p.setBlocks(25*time.Hour, p.blocks())
	}, []string{"network net: this host has last heard from etcd 25h0m0s ago, and gives out no address after 24h0m0s\n"}},
}

func TestCheck(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for _, tt := range contradictions {
			t.Run(tt.name, func(t *testing.T) {
				p := newPair(t, c)
				if out, err := p.check(); err != nil || out != "2 hosts, 2 blocks: no contradictions found\n" {
					t.Fatalf("before: %s, %v", out, err)
				}
				a, b := p.block(p.a), p.block(p.b)
				tt.make(p, a, b)
				out, err := p.check()
				if !errors.Is(err, ErrFound) {
					t.Errorf("%v", err)
				}
				for _, want := range tt.want {
					want = strings.NewReplacer("block A", "block "+a.String(), "block B", "block "+b.String(), "/B\n", "/"+b.String()+"\n", "/B;", "/"+b.String()+";", "AAA", p.a.Member.Host, "BBB", p.b.Member.Host, "P/v", p.a.Member.Prefix+"/v").Replace(want)
					if !strings.Contains(out, want) {
						t.Errorf("got\n%s\nwant\n%s", out, want)
					}
				}
				if got := strings.Count(out, "\n  fix: "); got != len(tt.want) {
					t.Errorf("%d findings:\n%s", got, out)
				}
			})
		}
	})
}

// TestCheckWaits checks that Check waits for a process that changes the blocks. Otherwise, Check would see
// a block in etcd that is not in the store yet.
func TestCheckWaits(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		p := newPair(t, c)
		blocks := p.blocks()
		p.setBlocks(0, nil)
		lock, err := stock.Lock(p.a.Dir, "net")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			var out bytes.Buffer
			err := Check(context.Background(), []*ipamconfig.Config{p.conf}, p.self, &out)
			done <- errors.Join(err, errors.New(out.String()))
		}()
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(300 * time.Millisecond):
		}
		p.setBlocks(0, blocks)
		lock.Unlock()
		if err := <-done; errors.Is(err, ErrFound) || !strings.Contains(err.Error(), "no contradictions found") {
			t.Error(err)
		}
	})
}
