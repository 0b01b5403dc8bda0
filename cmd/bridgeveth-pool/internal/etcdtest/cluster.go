package etcdtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options describe a cluster. The zero value is one member of the distribution's etcd.
type Options struct {
	Program string // file of etcd; "" means the one of the distribution
	Dir     string // folder of the data; "" means a temporary folder
	Members int    // 0 means 1
	Port    int    // for clients of the first member; 0 means 2379. Member i uses Port+2*i and the next port
	TLS     bool   // members and clients need certificates of Authority
}

// Cluster is a running etcd. Only one goroutine at a time may use the methods.
type Cluster struct {
	Endpoints []string   // of the members, in their order
	Authority *Authority // nil without TLS

	t       testing.TB
	o       Options
	members []*exec.Cmd // nil if the member does not run
	root    string      // password of the user root; "" until AddUser
}

// StartCluster starts a cluster, and waits until it answers. The cluster ends with the test.
func StartCluster(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Program == "" {
		o.Program = "etcd"
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Port == 0 {
		o.Port = 2379
	}
	c := &Cluster{t: t, o: o, members: make([]*exec.Cmd, max(1, o.Members))}
	if o.TLS {
		c.Authority = NewAuthority(t, o.Dir, "ca")
		c.Authority.Issue("member", time.Hour)
		c.Authority.Issue("admin", time.Hour)
	}
	for i := range c.members {
		c.Endpoints = append(c.Endpoints, c.url(i))
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.Kill(i)
		}
	})
	for i := range c.members {
		c.Start(i)
	}
	c.Client()
	return c
}

// url returns the address of a member for clients.
func (c *Cluster) url(i int) string {
	scheme := "http"
	if c.o.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, c.o.Port+2*i)
}

// peer returns the address of a member for the other members.
func (c *Cluster) peer(i int) string { return fmt.Sprintf("http://127.0.0.1:%d", c.o.Port+2*i+1) }

// Start starts a member that does not run. The member continues with its data. Start does not wait until
// the member answers.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	dir := filepath.Join(c.o.Dir, fmt.Sprint("member", i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	log, err := os.OpenFile(c.log(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	var all []string
	for n := range c.members {
		all = append(all, fmt.Sprintf("%d=%s", n, c.peer(n)))
	}
	args := []string{
		"--name", fmt.Sprint(i), "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", c.url(i), "--advertise-client-urls", c.url(i),
		"--listen-peer-urls", c.peer(i), "--initial-advertise-peer-urls", c.peer(i), "--initial-cluster", strings.Join(all, ","),
	}
	if a := c.Authority; a != nil {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", a.File("ca.crt"), "--cert-file", a.File("member.crt"), "--key-file", a.File("member.key"))
	}
	m := exec.Command(c.o.Program, args...)
	m.Stdout, m.Stderr = log, log
	m.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.Start(); err != nil {
		c.t.Fatalf("%v; install the package etcd-server", err)
	}
	c.members[i] = m
}

// log returns the file with the output of a member.
func (c *Cluster) log(i int) string {
	return filepath.Join(c.o.Dir, fmt.Sprint("member", i), "log")
}

// Kill ends a member by SIGKILL, and waits for its end. The member may be down already.
func (c *Cluster) Kill(i int) {
	if m := c.members[i]; m != nil {
		_ = m.Process.Kill()
		_ = m.Wait() // killed
		c.members[i] = nil
	}
}

// Client returns a client of all members, which waits until the cluster answers. It is the
// administrator after AddUser. The client ends with the test.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	conf := clientv3.Config{Endpoints: c.Endpoints, DialTimeout: time.Minute, Logger: zap.NewNop()}
	if c.root != "" {
		conf.Username, conf.Password = "root", c.root
	}
	if c.Authority != nil {
		conf.TLS = c.Authority.client("admin")
	}
	ctx := Deadline(c.t)
	for {
		client, err := clientv3.New(conf) // logs in, and fails if there is no leader
		if err == nil {
			c.t.Cleanup(func() { client.Close() })
			if _, err = client.Get(ctx, "ready"); err == nil {
				return client
			}
		}
		if ctx.Err() != nil {
			for i := range c.members {
				text, _ := os.ReadFile(c.log(i))
				c.t.Logf("member %d: %s", i, text)
			}
			c.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Leader returns the number of the member that leads the cluster, or -1.
func (c *Cluster) Leader() int {
	c.t.Helper()
	client := c.Client()
	defer client.Close()
	for i, m := range c.members {
		if m == nil {
			continue
		}
		if s, err := client.Status(Deadline(c.t), c.Endpoints[i]); err == nil && s.Leader == s.Header.MemberId {
			return i
		}
	}
	return -1
}

// AddUser adds a user with a role of the same name, which has no rights. The first call adds the user root too.
// From then on, etcd refuses clients without a user.
func (c *Cluster) AddUser(name, password string) {
	c.t.Helper()
	client, ctx := c.Client(), Deadline(c.t)
	defer client.Close()
	add := func(name, password string) {
		_, err := client.UserAdd(ctx, name, password)
		if err == nil {
			_, err = client.RoleAdd(ctx, name)
		}
		if err == nil {
			_, err = client.UserGrantRole(ctx, name, name)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if c.root == "" {
		add("root", "password-of-root")
		if _, err := client.AuthEnable(ctx); err != nil {
			c.t.Fatal(err)
		}
		c.root = "password-of-root"
		client = c.Client()
	}
	add(name, password)
}

// Allow lets a role read and write the keys that begin with a prefix.
func (c *Cluster) Allow(role, prefix string) {
	c.t.Helper()
	client := c.Client()
	defer client.Close()
	if _, err := client.RoleGrantPermission(Deadline(c.t), role, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
		c.t.Fatal(err)
	}
}
