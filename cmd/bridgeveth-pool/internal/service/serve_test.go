package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// logged is the log of a service.
type logged struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.Write(line)
}

// await waits until the log has a text the given number of times.
func (l *logged) await(t *testing.T, text string, times int) {
	t.Helper()
	for ctx := etcdtest.Deadline(t); ; time.Sleep(20 * time.Millisecond) {
		l.lock.Lock()
		all := l.text.String()
		l.lock.Unlock()
		if strings.Count(all, text) == times {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the log has %q not %d times:\n%s", text, times, all)
		}
	}
}

// TestRemoved removes the configuration of a network while the service runs, and writes it again, as programs do
// that replace a file. The host keeps its block meanwhile, and etcd hears the host. testReturnAll in package
// stock checks when the blocks go back.
func TestRemoved(t *testing.T) {
	t.Parallel()
	// The store of a pool is always in /run. The test process has a mount namespace of its own.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const port = 3010
	c := etcdtest.StartCluster(t, etcdtest.Options{Port: port}).Client()
	file := filepath.Join(t.TempDir(), "net.conf")
	write := func() {
		t.Helper()
		conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "type": "ipam-simple", "ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/16",
			"pool": {"etcd": {"endpoints": ["http://127.0.0.1:%d"]}}}}`, port)
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count := func(want int64, keys string) {
		t.Helper()
		if got, err := c.Get(etcdtest.Deadline(t), "/bridgeveth/v1/"+keys+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || got.Count != want {
			t.Errorf("etcd has %v, %v, want %d keys %s", got, err, want, keys)
		}
	}
	write()
	ctx, stop := context.WithCancel(context.Background())
	out, ended := &logged{}, make(chan struct{})
	go func() {
		defer close(ended)
		Serve(ctx, filepath.Dir(file), host.Host{ID: "a", Name: "a", Boot: "boot"}, out)
	}()
	const owns = "network net: etcd answers, this host owns 1 blocks"
	out.await(t, owns, 1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	out.await(t, "network net: no configuration has the network; this host owns 1 blocks, and returns those that stay without a lease", 1)
	count(1, "blocks")
	count(1, "alive")
	write()
	out.await(t, owns, 2)
	count(1, "blocks")
	stop()
	<-ended
	count(1, "blocks")
	count(0, "alive")
}

// TestLeft checks that a service for a network without a configuration ends when the host has no block.
func TestLeft(t *testing.T) {
	t.Parallel()
	const port = 3020
	c := etcdtest.StartCluster(t, etcdtest.Options{Port: port}).Client()
	conf, err := ipamconfig.Read(&skel.CmdArgs{StdinData: fmt.Appendf(nil, `{"name": "net", "ipam": {"subnet": "10.1.0.0/16", "pool": {"etcd": {"endpoints": ["http://127.0.0.1:%d"]}}}}`, port)})
	if err != nil {
		t.Fatal(err)
	}
	conf.DataDir = t.TempDir()
	r := (&service{conf: conf, host: host.Host{ID: "a", Name: "a", Boot: "boot"}, log: log.New(io.Discard, "", 0)}).left()
	s := Open(r.conf, r.host)
	defer s.Close()
	r.run(context.Background(), s)
	answer, err := c.Get(etcdtest.Deadline(t), "/bridgeveth/v1/", clientv3.WithPrefix())
	if err != nil || len(answer.Kvs) != 1 || !strings.HasPrefix(string(answer.Kvs[0].Key), "/bridgeveth/v1/hosts/a/net") {
		text, _ := json.Marshal(answer)
		t.Errorf("want only the record of the host in etcd: %s, %v", text, err)
	}
	if conf.Pool.Spare == 0 {
		t.Error("the configuration has changed")
	}
}
