package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/networks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

func TestMain(m *testing.M) { etcdtest.Main(m) }

// pair is two hosts, a and b, that share the subnet 10.1.0.0/26 in blocks of eight addresses. The
// commands run on host a.
type pair struct {
	t    *testing.T
	etcd *clientv3.Client
	conf *ipamconfig.Config // of host a
	self host.Host
	a, b *stock.Stock
}

// newPair returns two hosts that own one block each.
func newPair(t *testing.T, c *clientv3.Client) *pair {
	t.Helper()
	prefix := "/" + t.Name()
	list, err := networks.Parse(fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "net", "type": "ipam-simple", "ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/26",
		"pool": {"etcd": {"endpoints": [%q], "prefix": %q}, "block": 29}}}`, c.Endpoints()[0], prefix))
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, etcd: c, conf: list[0], self: host.Host{ID: strings.Repeat("a", 32), Name: "node-a", Boot: "boot"}}
	p.conf.DataDir = filepath.Join(t.TempDir(), "a")
	member := func(name string) *stock.Stock {
		return &stock.Stock{
			Member: registry.Member{KV: c.KV, Prefix: prefix, Host: strings.Repeat(name, 32), Network: "net", Name: "node-" + name, Boot: "boot"},
			Pools:  []blocks.Pool{{Set: p.conf.Sets[0], Bits: 29}}, Spare: 1, Dir: filepath.Join(t.TempDir(), name),
		}
	}
	p.a, p.b = member("a"), member("b")
	p.a.Dir = p.conf.DataDir
	p.fill(p.a)
	p.fill(p.b)
	return p
}

func (p *pair) fill(s *stock.Stock) {
	p.t.Helper()
	if err := s.Fill(etcdtest.Deadline(p.t)); err != nil {
		p.t.Fatal(err)
	}
}

// store calls use with the store of host a.
func (p *pair) store(use func(*ipam.Store) error) {
	p.t.Helper()
	s, err := ipam.Open(p.a.Dir, time.Minute)
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	if err := use(s); err != nil {
		p.t.Fatal(err)
	}
}

// lease leases an address of host a's blocks.
func (p *pair) lease(container string) {
	p.t.Helper()
	p.store(func(s *ipam.Store) error {
		_, err := s.Reserve(ipam.Request{Attachment: ipam.Attachment{Network: "net", Container: container, Interface: "eth0"}, Sets: p.conf.Sets, Pool: true})
		return err
	})
}

// block returns the only block of a host.
func (p *pair) block(s *stock.Stock) netip.Prefix {
	p.t.Helper()
	_, list, _, err := s.Low()
	if err != nil || len(list) != 1 {
		p.t.Fatalf("%v, %v", list, err)
	}
	return list[0].Subnet
}

func TestList(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		p := newPair(t, c)
		p.lease("c1")
		p.lease("c2")
		ctx := etcdtest.Deadline(t)
		lease, err := c.Grant(ctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		p.b.Lease = lease.ID
		p.fill(p.b)
		l, err := List(ctx, []*ipamconfig.Config{p.conf}, p.self)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := l.JSON(&out); err != nil {
			t.Fatal(err)
		}
		var got Listing
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for i := range got.Hosts {
			for _, at := range []**time.Time{&got.Hosts[i].Heard, &got.Hosts[i].Blocks[0].Since} {
				if *at == nil || time.Since(**at).Abs() > time.Hour {
					t.Errorf("time %v", *at)
				}
				*at = nil
			}
		}
		leased, size := uint64(2), func(b netip.Prefix) *uint64 {
			n := uint64(8)
			if b.Contains(netip.MustParseAddr("10.1.0.0")) {
				n = 6 // without the network address and the gateway
			} else if b.Contains(netip.MustParseAddr("10.1.0.63")) {
				n = 7 // without the broadcast address
			}
			return &n
		}
		a, b := p.block(p.a), p.block(p.b)
		want := Listing{Hosts: []Host{
			{Network: "net", Host: p.a.Member.Host, Name: "node-a", Self: true, State: "silent", Blocks: []Block{{Block: a.String(), Addresses: size(a), Leased: &leased}}},
			{Network: "net", Host: p.b.Member.Host, Name: "node-b", State: "alive", Blocks: []Block{{Block: b.String(), Addresses: size(b)}}},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		out.Reset()
		if err := l.Table(&out); err != nil {
			t.Fatal(err)
		}
		t.Log("\n" + out.String())
		for _, want := range []string{
			fmt.Sprintf(" 1       %d          2\n", *size(a)), fmt.Sprintf(" 1       %d          -\n", *size(b)), fmt.Sprintf("  2 of %d leased\n", *size(a)), "node-a (this host)  aaaaaaaa",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing", want)
			}
		}
	})
}
