package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// programVar is an environment variable. If it is set, the test's executable file is bridgeveth-pool.
const programVar = "POOL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVar) != "" {
		main()
		return
	}
	etcdtest.Main(m)
}

// machine is a host of the pool, with its own /run, machine ID and configuration files.
type machine struct {
	t                  *testing.T
	run, id, conf, bin string
}

// programs returns a folder with ipam-simple and bridgeveth-pool.
func programs(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", filepath.Join(bin, "ipam-simple"), "./cmd/bridgeveth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "bridgeveth-pool"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// lastPort is a port of the last test. The tests share a network namespace, and most of their time they wait for an
// etcd that does not answer. Each test has ports of its own, so they wait at the same time.
var lastPort atomic.Int32

// freePort returns a port for clients of etcd. Nobody uses the nine ports after it.
func freePort() int { return 3000 + 10*int(lastPort.Add(1)) }

// newMachine returns a host. Each block of its pool has 8 addresses. Its etcd has the given port.
func newMachine(t *testing.T, bin, id string, port int) *machine {
	t.Helper()
	m := &machine{t, t.TempDir(), filepath.Join(t.TempDir(), "machine-id"), t.TempDir(), bin}
	write(t, m.id, strings.Repeat(id, 32))
	m.configure(fmt.Sprintf(`"endpoints": ["http://127.0.0.1:%d"]`, port))
	return m
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configure writes the configuration of the network, with the given keys below ipam.pool.etcd.
func (m *machine) configure(etcd string) {
	m.t.Helper()
	write(m.t, filepath.Join(m.conf, "net.conf"), `{"cniVersion": "1.1.0", "name": "net", "type": "ipam-simple", "ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/26",
		"pool": {"etcd": {`+etcd+`}, "block": 29}}}`)
}

// command returns a command that runs a program on the host.
func (m *machine) command(program string, args ...string) *exec.Cmd {
	const enter = `mount --bind "$1" /run; mount --bind "$2" /etc/machine-id; shift 2; exec "$@"`
	c := exec.Command("unshare", append([]string{"-m", "sh", "-ec", enter, "sh", m.run, m.id, filepath.Join(m.bin, program)}, args...)...)
	c.Env = append(os.Environ(), programVar+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// call runs a verb of ipam-simple. For ADD, it returns the address. The error contains the message.
func (m *machine) call(verb, container string) (address string, err error) {
	m.t.Helper()
	conf, err := os.Open(filepath.Join(m.conf, "net.conf"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conf.Close()
	c := m.command("ipam-simple")
	c.Env = append(c.Env, "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_NETNS=/proc/self/ns/net", "CNI_IFNAME=eth0", "CNI_PATH="+m.bin)
	c.Stdin = conf
	out, err := c.Output()
	var answer struct {
		IPs []struct{ Address string }
		Msg string
	}
	if len(out) > 0 && json.Unmarshal(out, &answer) != nil {
		m.t.Fatalf("%s: %s", verb, out)
	}
	if err != nil {
		return "", errors.New(answer.Msg)
	}
	for _, ip := range answer.IPs {
		address = ip.Address
	}
	return address, nil
}

// TestTwoHosts attaches containers on two hosts with one pool: without a service, with the service,
// without etcd until no address is left, and with etcd again. No address may be given out twice.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	bin, port := programs(t), freePort()
	a, b := newMachine(t, bin, "a", port), newMachine(t, bin, "b", port)
	owner := map[string]string{}
	add := func(m *machine, container string) error {
		address, err := m.call("ADD", container)
		if err == nil && owner[address] != "" {
			t.Errorf("%s and %s have %s", owner[address], container, address)
		}
		owner[address] = container
		return err
	}
	mustAdd := func(m *machine, container string) {
		t.Helper()
		if err := add(m, container); err != nil {
			t.Fatalf("ADD %s: %v", container, err)
		}
	}

	// Before etcd runs, no host has a block.
	if err := add(a, "a-early"); err == nil || !strings.Contains(err.Error(), "etcd unreachable since the boot (this host has addresses for 0 more containers): ") || !strings.Contains(err.Error(), fmt.Sprintf("http://127.0.0.1:%d: dial tcp 127.0.0.1:%[1]d: connect: connection refused", port)) {
		t.Errorf("without etcd: %v", err)
	}
	etcd := etcdtest.StartCluster(t, etcdtest.Options{Port: port})
	c := etcd.Client()
	for i := range 10 { // more than one block of each host
		mustAdd(a, fmt.Sprint("a", i))
		mustAdd(b, fmt.Sprint("b", i))
	}
	if _, err := b.call("STATUS", ""); err != nil {
		t.Errorf("STATUS: %v", err)
	}

	// The service adds a block to the stock, as soon as the last one is in use.
	serve := a.command("bridgeveth-pool", "serve", "--conf-dir", a.conf)
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx := etcdtest.Deadline(t); ; {
		alive, err := c.Get(ctx, "/bridgeveth/v1/alive/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := c.Get(ctx, "/bridgeveth/v1/blocks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		if alive.Count == 1 && blocks.Count == 5 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}

	// Without etcd, ADD goes on until the blocks are used up.
	etcd.Kill(0)
	var err error
	more := 0
	for ; err == nil && more < 20; more++ {
		err = add(a, fmt.Sprint("a-more", more))
	}
	if want := "all addresses in the blocks of this host are leased, and the claim of another block failed: "; err == nil || more < 8 ||
		!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "etcd unreachable since 2") || strings.Contains(err.Error(), "no address is left") {
		t.Errorf("after %d calls without etcd: %v", more, err)
	}
	if _, err := a.call("DEL", "a0"); err != nil {
		t.Errorf("DEL without etcd: %v", err)
	}
	delete(owner, "")
	maps.DeleteFunc(owner, func(_, container string) bool { return container == "a0" })

	etcd.Start(0)
	etcd.Client()
	mustAdd(b, "b-late")

	// The hosts claim all blocks, and so also try those of each other.
	for i, full := 0, 0; full < 2; i++ {
		full++
		if add([]*machine{a, b}[i%2], fmt.Sprint("last", i)) == nil {
			full = 0
		}
		delete(owner, "")
	}
	if len(owner) != 61 {
		t.Errorf("%d of 61 addresses were given out", len(owner))
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("serve: %v", err)
	}
}
