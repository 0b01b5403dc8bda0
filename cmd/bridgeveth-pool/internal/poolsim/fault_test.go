package poolsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// The faults of a host.
const (
	crashed = "host crashed and booted again"
	gone    = "host lost for good, and its blocks released"
	killed  = "bridgeveth-pool killed at a request to etcd"
	jumped  = "`CLOCK_BOOTTIME` of a host 25 hours ahead"
)

// The faults of etcd and of the network.
const (
	memberKilled = "member of etcd killed"
	cutOff       = "host cut off from etcd"
)

// strike makes a fault of the host.
func (h *host) strike(fault string) {
	h.r.count(fault)
	switch fault {
	case crashed:
		h.crash()
		down := h.r.leaseTime() * int64(time.Second)
		sleep(context.Background(), time.Duration(down/8+h.rng.Int64N(down)))
		h.boot()
	case gone:
		h.crash()
		h.lost = true
	case killed:
		h.link.killIn.Store(int32(1 + h.rng.IntN(5)))
	case jumped:
		h.suspend()
	}
}

// crash ends all processes and containers of the host. After a crash with a disk, the folder of the store
// is as it was, and the store belongs to an earlier boot. Otherwise the folder is empty.
func (h *host) crash() {
	h.stop()
	for _, c := range h.living {
		h.r.ledger.remove(c.address)
	}
	h.living, h.waiting = nil, nil
	var err error
	if h.rng.IntN(2) == 0 {
		err = os.RemoveAll(h.dir)
	} else {
		for _, file := range h.storeFiles() {
			err = os.Rename(file, filepath.Join(h.dir, "leases-earlier.db"))
		}
	}
	if err != nil {
		h.r.problem("crash of host %s: %v", h.id, err)
	}
	h.boots++
}

// boot starts the host. No address may be leased before the host has heard from etcd.
func (h *host) boot() {
	if h.boots > 0 {
		if address, _, err := h.reserve("early"); !errors.Is(err, ipam.ErrUnheard) {
			h.r.problem("host %s has leased %s after a boot, before it has heard from etcd: %v", h.id, address, err)
		}
	}
	h.startService()
}

// release removes the blocks of a host that is down, as an administrator does.
func (r *run) release(h *host) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	owned := fmt.Sprintf("%s/v1/owned/%s/%s/", prefix, h.id, network)
	list, err := r.admin.Get(ctx, owned, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	ops := []clientv3.Op{clientv3.OpDelete(owned, clientv3.WithPrefix())}
	for _, kv := range list.Kvs {
		ops = append(ops, clientv3.OpDelete(prefix+"/v1/blocks/"+strings.TrimPrefix(string(kv.Key), owned)))
	}
	_, err = r.admin.Txn(ctx).Then(ops...).Commit()
	return err
}

// disturb kills members of etcd, one at a time, and cuts off hosts, until ctx ends. Then all members run,
// and no host is cut off.
func (r *run) disturb(ctx context.Context, rng *rand.Rand) {
	unit := r.unit()
	for ctx.Err() == nil {
		member := rng.IntN(members)
		r.cluster.Kill(member)
		r.count(memberKilled)
		first, number := rng.IntN(len(r.hosts)), len(r.hosts)/10
		for i := range number {
			r.hosts[(first+i)%len(r.hosts)].link.cut.Store(true)
			r.count(cutOff)
		}
		sleep(ctx, max(time.Second, time.Duration(5+rng.IntN(15))*unit))
		r.cluster.Start(member)
		sleep(ctx, max(time.Second, time.Duration(5+rng.IntN(5))*unit))
		for _, h := range r.hosts {
			h.link.cut.Store(false)
		}
		sleep(ctx, max(time.Second, 10*unit))
	}
}

// unavailable reports whether an error means that etcd has not answered.
func unavailable(err error) bool {
	var of rpctypes.EtcdError
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded ||
		errors.As(err, &of) && of.Code() == codes.Unavailable
}

// laterVar is set in a process whose clock CLOCK_BOOTTIME is 25 hours ahead. Its value is a visit.
const laterVar = "POOL_SIM_LATER"

// visit is one ADD on a host whose clock is ahead.
type visit struct {
	Dir, Host, Boot, Container string
	Subnet                     netip.Prefix
	Endpoints                  []string // empty if the host is cut off
}

// visited is the result of a visit.
type visited struct {
	Early, Claim, Late string // errors of the first attempt, of the claim and of the second attempt
	Unheard            bool   // Early is ipam.ErrUnheard
	Address            netip.Addr
	Block              ipam.Block
}

// suspend calls ADD in a process whose CLOCK_BOOTTIME is 25 hours ahead, as after a suspension of the
// host. The host may lease an address only after it has heard from etcd.
func (h *host) suspend() {
	h.stop()
	defer h.startService()
	h.next++
	c := container{id: fmt.Sprintf("%s-%d", h.id, h.next)}
	v := visit{h.dir, h.id, fmt.Sprint("boot", h.boots), c.id, h.r.set[0].Subnet, h.r.cluster.Endpoints}
	if h.link.cut.Load() {
		v.Endpoints = nil
	}
	text, err := json.Marshal(v)
	var self string
	if err == nil {
		self, err = os.Executable()
	}
	var result visited
	if err == nil {
		cmd := exec.Command("unshare", "--time", "--boottime", "90000", "--fork", "--kill-child", self)
		cmd.Env = append(os.Environ(), laterVar+"="+string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out []byte
		if out, err = cmd.CombinedOutput(); err == nil {
			err = json.Unmarshal(bytes.TrimSpace(out), &result)
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	switch {
	case err != nil:
		h.r.problem("host %s with its clock ahead: %v", h.id, err)
	case !result.Unheard:
		h.r.problem("host %s has leased an address 25 hours after it has heard from etcd: %+v", h.id, result)
	case result.Late != "":
		h.r.problem("host %s with its clock ahead: %s", h.id, result.Late)
	case result.Address.IsValid():
		c.address = result.Address
		h.take(c, result.Block)
	}
}

// later makes a visit and prints the result.
func later() {
	var v visit
	var result visited
	err := json.Unmarshal([]byte(os.Getenv(laterVar)), &v)
	set, bad := complete(v.Subnet)
	if err = errors.Join(err, bad); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _, err = reserve(v.Dir, set, v.Container)
	result.Early, result.Unheard = fmt.Sprint(err), errors.Is(err, ipam.ErrUnheard)
	if len(v.Endpoints) > 0 {
		client, err := clientv3.New(clientv3.Config{Endpoints: v.Endpoints, Logger: zap.NewNop()})
		if err == nil {
			defer client.Close()
			err = fill(context.Background(), &stock.Stock{
				Member: registry.Member{KV: client, Prefix: prefix, Host: v.Host, Network: network, Name: v.Host, Boot: v.Boot},
				Pools:  []blocks.Pool{{Set: set, Bits: blockBits}}, Spare: 1, Dir: v.Dir,
			})
		}
		if err != nil {
			result.Claim = err.Error()
		} else if result.Address, result.Block, err = reserve(v.Dir, set, v.Container); err != nil {
			result.Late = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
}
