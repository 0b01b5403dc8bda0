package etcdtest

import (
	"fmt"
	"io"
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
	Apart   bool   // each member has its own network namespace, so that Cut and Unplug can be called
}

// Cluster is a running etcd. Only one goroutine at a time may use the methods.
type Cluster struct {
	Endpoints []string   // of the members, in their order
	Authority *Authority // nil without TLS

	t       testing.TB
	o       Options
	members []*exec.Cmd // nil if the member does not run
	ports   []string    // bridge ports of the members that are apart
	links   int         // number of bridge ports that were made
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
	c := &Cluster{t: t, o: o, members: make([]*exec.Cmd, max(1, o.Members)), ports: make([]string, max(1, o.Members))}
	if o.TLS {
		c.Authority = NewAuthority(t, o.Dir, "ca")
		c.Authority.Issue("member", time.Hour)
		c.Authority.Issue("admin", time.Hour)
	}
	if o.Apart {
		c.build()
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
	return fmt.Sprintf("%s://%s:%d", scheme, c.address(i), c.o.Port+2*i)
}

// address returns the IP address of a member.
func (c *Cluster) address(i int) string {
	if c.o.Apart {
		return c.apart(i)
	}
	return "127.0.0.1"
}

// peer returns the address of a member for the other members.
func (c *Cluster) peer(i int) string {
	return fmt.Sprintf("http://%s:%d", c.address(i), c.o.Port+2*i+1)
}

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
	m := exec.Command("sh", append([]string{"-ec", `read -r _; exec "$@"`, "sh", c.o.Program}, args...)...)
	m.Stdout, m.Stderr = log, log
	m.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.o.Apart {
		m.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	ready, err := m.StdinPipe()
	if err == nil {
		err = m.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.members[i] = m
	if c.o.Apart {
		c.plug(i)
	}
	if _, err := io.WriteString(ready, "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// Backup copies the data of all members. The function restore replaces the data by the copy. Both
// restart the members.
func (c *Cluster) Backup() (restore func()) {
	c.t.Helper()
	folder := c.t.TempDir()
	data := func(root string, i int) string { return filepath.Join(root, fmt.Sprint("member", i), "data") }
	replace := func(to, from string) {
		c.t.Helper()
		for i := range c.members {
			c.Kill(i)
		}
		for i := range c.members {
			err := os.RemoveAll(data(to, i))
			if err == nil {
				err = os.CopyFS(data(to, i), os.DirFS(data(from, i)))
			}
			if err != nil {
				c.t.Fatal(err)
			}
			c.Start(i)
		}
		c.Client()
	}
	replace(folder, c.o.Dir)
	return func() { replace(c.o.Dir, folder) }
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

// Wait waits until all members belong to the cluster and know its leader.
func (c *Cluster) Wait() {
	c.t.Helper()
	client, ctx := c.Client(), Deadline(c.t)
	defer client.Close()
	for _, endpoint := range c.Endpoints {
		for {
			s, err := client.Status(ctx, endpoint)
			if err == nil && s.Leader != 0 {
				break
			}
			if ctx.Err() != nil {
				c.t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
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

// AddUser adds a user with a role. The first call adds the user root too. From then on, etcd refuses
// clients without a user.
func (c *Cluster) AddUser(name, password, role string) {
	c.t.Helper()
	if c.root == "" {
		c.AddRole("root")
		c.addUser("root", "password-of-root", "root")
		if _, err := c.Client().AuthEnable(Deadline(c.t)); err != nil {
			c.t.Fatal(err)
		}
		c.root = "password-of-root"
	}
	c.addUser(name, password, role)
}

func (c *Cluster) addUser(name, password, role string) {
	c.t.Helper()
	client := c.Client()
	_, err := client.UserAdd(Deadline(c.t), name, password)
	if err == nil {
		_, err = client.UserGrantRole(Deadline(c.t), name, role)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// AddRole adds a role without rights.
func (c *Cluster) AddRole(name string) {
	c.t.Helper()
	if _, err := c.Client().RoleAdd(Deadline(c.t), name); err != nil {
		c.t.Fatal(err)
	}
}

// Allow lets a role read and write the keys that begin with a prefix.
func (c *Cluster) Allow(role, prefix string) {
	c.t.Helper()
	_, err := c.Client().RoleGrantPermission(Deadline(c.t), role, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
	if err != nil {
		c.t.Fatal(err)
	}
}
