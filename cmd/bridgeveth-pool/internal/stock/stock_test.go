package stock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// pool returns the blocks of a subnet.
func pool(subnet string, bits int) []blocks.Pool {
	r, bad := ipam.Range{Subnet: netip.MustParsePrefix(subnet)}.Complete()
	if bad != nil {
		panic(bad)
	}
	return []blocks.Pool{{Set: ipam.Set{r}, Bits: bits}}
}

// stock returns the stock of a host, with the subnet 10.1.0.0/26 in blocks of four addresses.
func stock(t *testing.T, kv clientv3.KV, host string) *Stock {
	t.Helper()
	return stockIn(filepath.Join(t.TempDir(), "store"), kv, "/"+t.Name(), host)
}

// stockIn returns the same as stock, with the store in a folder.
func stockIn(dir string, kv clientv3.KV, prefix, host string) *Stock {
	return &Stock{
		Member: registry.Member{KV: kv, Prefix: prefix, Host: host, Network: "net", Name: host, Boot: "boot"},
		Pools:  pool("10.1.0.0/26", 30), Spare: 1, Dir: dir,
	}
}

// reserve leases an address of the host's blocks.
func reserve(t *testing.T, s *Stock, container string) (address string, err error) {
	t.Helper()
	err = s.withStore(func(store *ipam.Store) error {
		leases, err := store.Reserve(ipam.Request{
			Attachment: ipam.Attachment{Network: "net", Container: container, Interface: "eth0"}, Sets: []ipam.Set{s.Pools[0].Set}, Pool: true,
		})
		if err == nil {
			address = leases[0].Address.Addr().String()
		}
		return err
	})
	return address, err
}

// subnets returns the blocks in the host's store as a text.
func subnets(t *testing.T, s *Stock) string {
	t.Helper()
	var list []string
	err := s.withStore(func(store *ipam.Store) error {
		_, blocks, _, err := store.Blocks("net")
		for _, b := range blocks {
			list = append(list, b.Subnet.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func fill(t *testing.T, s *Stock) {
	t.Helper()
	if err := s.Fill(etcdtest.Deadline(t)); err != nil {
		t.Fatal(err)
	}
}

func TestFill(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		for name, test := range map[string]func(*testing.T, *clientv3.Client){"hosts": testHosts, "killed": testKilled, "store lost": testStoreLost, "clone": testClone, "reboot": testReboot, "addresses": testAddresses} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, c)
			})
		}
	})
}

// testHosts fills the stocks of hosts, and leases all addresses of the pool. No address may be
// leased twice.
func testHosts(t *testing.T, c *clientv3.Client) {
	leased := map[string]string{}
	hosts := []*Stock{stock(t, c, "a"), stock(t, c, "b"), stock(t, c, "c")}
	full := 0
	for n := 0; full < len(hosts); n++ {
		s := hosts[n%len(hosts)]
		address, err := reserve(t, s, fmt.Sprint(n))
		if err != nil {
			if full++; !errors.Is(s.Fill(etcdtest.Deadline(t)), registry.ErrFull) {
				full = 0
			}
			continue
		}
		if other, twice := leased[address]; twice {
			t.Errorf("%s and %s leased %s", other, s.Member.Host, address)
		}
		leased[address], full = s.Member.Host, 0
	}
	if len(leased) != 61 {
		t.Errorf("%d addresses are leased, want 61", len(leased))
	}
}

// killingKV ends a test's process after the answer to a claim, before anything is recorded: it
// panics.
type killingKV struct{ clientv3.KV }

type killingTxn struct{ clientv3.Txn }

func (kv killingKV) Txn(ctx context.Context) clientv3.Txn { return killingTxn{kv.KV.Txn(ctx)} }

func (t killingTxn) If(list ...clientv3.Cmp) clientv3.Txn { return killingTxn{t.Txn.If(list...)} }

func (t killingTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	if slices.ContainsFunc(ops, func(op clientv3.Op) bool { return strings.Contains(string(op.KeyBytes()), "/blocks/") }) {
		return claimTxn{t.Txn.Then(ops...)}
	}
	return killingTxn{t.Txn.Then(ops...)}
}

type claimTxn struct{ clientv3.Txn }

func (t claimTxn) Else(ops ...clientv3.Op) clientv3.Txn { return claimTxn{t.Txn.Else(ops...)} }

func (t claimTxn) Commit() (*clientv3.TxnResponse, error) {
	answer, err := t.Txn.Commit()
	if err == nil && answer.Succeeded {
		panic("killed")
	}
	return answer, err
}

// testKilled checks that a block is found again if the process ends after etcd has made the claim.
func testKilled(t *testing.T, c *clientv3.Client) {
	s := stock(t, killingKV{c}, "a")
	func() {
		defer func() {
			if recover() != "killed" {
				t.Error("Fill did not claim a block")
			}
		}()
		fill(t, s)
	}()
	if got := subnets(t, s); got != "" {
		t.Fatalf("the store has %s before the answer", got)
	}
	s.Member.KV = c
	fill(t, s)
	count, err := c.Get(etcdtest.Deadline(t), s.Member.Prefix+"/v1/blocks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || count.Count != 1 || len(strings.Fields(subnets(t, s))) != 1 {
		t.Errorf("etcd has %v blocks, %v, the store has %q, want the claimed block", count, err, subnets(t, s))
	}
}

// testStoreLost checks that a host without its store gets its own blocks again, and no others.
func testStoreLost(t *testing.T, c *clientv3.Client) {
	s, other := stock(t, c, "a"), stock(t, c, "b")
	fill(t, s)
	fill(t, other)
	before := subnets(t, s)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := reserve(t, s, "early"); !errors.Is(err, ipam.ErrUnheard) {
		t.Errorf("an address before etcd is heard: %v, want %v", err, ipam.ErrUnheard)
	}
	s.Member.Boot = "boot2"
	fill(t, s)
	if got := subnets(t, s); got != before || got == subnets(t, other) {
		t.Errorf("the host has %s, want %s", got, before)
	}
}

// testClone checks that a host stops giving out addresses when another machine has taken its
// identity.
func testClone(t *testing.T, c *clientv3.Client) {
	s, clone := stock(t, c, "a"), stock(t, c, "a")
	clone.Member.Boot = "boot of the clone"
	fill(t, s)
	fill(t, clone)
	if err := s.Fill(etcdtest.Deadline(t)); !errors.Is(err, registry.ErrClone) {
		t.Errorf("%v, want %v", err, registry.ErrClone)
	}
	if address, err := reserve(t, s, "late"); err == nil {
		t.Errorf("the host has leased %s", address)
	}
	if err := s.Fill(etcdtest.Deadline(t)); !errors.Is(err, registry.ErrClone) {
		t.Errorf("second time: %v, want %v", err, registry.ErrClone)
	}
}

// testAddresses checks that Fill claims the blocks of addresses, also of static ones, and that a block of
// another host does not keep Fill from filling the stock.
func testAddresses(t *testing.T, c *clientv3.Client) {
	s, other := stock(t, c, "a"), stock(t, c, "b")
	static, err := ipam.ParseInterval("10.1.0.48/30")
	set, bad := s.Pools[0].Set[0].Split(nil, []ipam.Interval{static})
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	s.Pools[0].Set, other.Pools[0].Set = set, set
	at := func(list ...string) (all []netip.Addr) {
		for _, text := range list {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	if err := s.Fill(etcdtest.Deadline(t), at("10.1.0.5", "10.1.0.6", "10.1.0.49")...); err != nil {
		t.Fatal(err)
	}
	if got := subnets(t, s); got != "10.1.0.4/30 10.1.0.48/30" { // the first block is also the stock
		t.Errorf("the host has %s", got)
	}
	err = other.Fill(etcdtest.Deadline(t), at("10.1.0.5", "10.1.0.50", "10.2.0.1")...)
	want := `address 10.1.0.5: block 10.1.0.4/30 belongs to host "a" (ID a, network net)
address 10.1.0.50: block 10.1.0.48/30 belongs to host "a" (ID a, network net)
address 10.2.0.1: no container of the network can have this address; request an address of the ranges`
	if !errors.Is(err, registry.ErrTaken) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if got := strings.Fields(subnets(t, other)); len(got) != 1 {
		t.Errorf("the other host has %s, want one block in stock", got)
	}
}

// testReboot checks that a host that boots while etcd still has the key of its last boot gets its
// blocks as soon as the key has ended.
func testReboot(t *testing.T, c *clientv3.Client) {
	s := stock(t, c, "a")
	fill(t, s)
	before := subnets(t, s)
	lease, err := c.Grant(etcdtest.Deadline(t), 60)
	if err == nil {
		err = s.Member.StayAlive(etcdtest.Deadline(t), lease.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	rebooted := stock(t, c, "a")
	rebooted.Member.Boot = "boot2"
	if err := rebooted.Fill(etcdtest.Deadline(t)); !errors.Is(err, registry.ErrClone) {
		t.Errorf("%v, want %v", err, registry.ErrClone)
	}
	if _, err := c.Revoke(etcdtest.Deadline(t), lease.ID); err != nil {
		t.Fatal(err)
	}
	fill(t, rebooted)
	if got := subnets(t, rebooted); got != before {
		t.Errorf("the host has %s, want %s", got, before)
	}
}
