package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const password = "very-secret-password"

// TestSecurity uses an etcd that wants a certificate of its clients, and that has users: with right
// and with wrong files, by ADD and by the command claim.
func TestSecurity(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	etcdtest.EachProgram(t, func(t *testing.T, program string, port int) {
		t.Parallel()
		c := etcdtest.StartCluster(t, etcdtest.Options{Program: program, Port: port + 30, TLS: true})
		addRole(t, c)
		c.AddRole("nothing")
		c.AddUser("host", password, "bridgeveth")
		c.AddUser("stranger", password, "nothing")
		own, foreign := c.Authority, etcdtest.NewAuthority(t, t.TempDir(), "ca")
		for _, a := range []*etcdtest.Authority{own, foreign} {
			a.Issue("host", time.Hour)
			a.Issue("stranger", time.Hour)
			a.Issue("expired", -time.Hour)
			write(t, a.File("password"), password+"\n")
			write(t, a.File("wrong"), "another-secret-password\n")
		}
		client := c.Client()
		keys := func(prefix string) int64 {
			t.Helper()
			answer, err := client.Get(etcdtest.Deadline(t), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				t.Fatal(err)
			}
			return answer.Count
		}
		endpoint := fmt.Sprintf(`"endpoints": [%q]`, c.Endpoints[0])
		configured := func(ca, certificate, key, user, file string) string {
			text := endpoint
			for _, k := range []struct{ name, value string }{{"caFile", ca}, {"certFile", certificate}, {"keyFile", key}, {"username", user}, {"passwordFile", file}} {
				if k.value != "" {
					text += fmt.Sprintf(`, %q: %q`, k.name, k.value)
				}
			}
			return text
		}
		ca, crt, key, pass := own.File("ca.crt"), own.File("host.crt"), own.File("host.key"), own.File("password")

		secrets := secrets(t, own, foreign)
		seen := watchProcesses(t, secrets)
		var all sync.WaitGroup // t.Parallel would run only as many tests as there are processors
		for name, tt := range map[string]struct {
			etcd string
			want []string // parts of the error
		}{
			"authority": {configured(foreign.File("ca.crt"), crt, key, "host", pass), []string{
				c.Endpoints[0] + ": ipam.pool.etcd.caFile: \"" + foreign.File("ca.crt"), "x509: ", "; name the file with the certificates that sign those of etcd",
			}},
			"expired": {configured(ca, own.File("expired.crt"), own.File("expired.key"), "host", pass), []string{
				"ipam.pool.etcd.certFile: " + own.File("expired.crt") + " has expired on ", "remote error: tls: ", "; renew the certificate",
			}},
			"foreign": {configured(ca, foreign.File("host.crt"), foreign.File("host.key"), "host", pass), []string{
				"ipam.pool.etcd.certFile: the member refuses " + foreign.File("host.crt"), "remote error: tls: ", "; give a certificate that an authority of etcd has signed",
			}},
			"no certificate": {configured(ca, "", "", "host", pass), []string{
				"ipam.pool.etcd.certFile: it is missing, and the member wants a certificate", "; give certFile and keyFile",
			}},
			"no key file": {configured(ca, crt, own.File("none"), "host", pass), []string{
				"ipam.pool.etcd.keyFile: open " + own.File("none") + ": no such file", "; name the file with the private key of the certificate " + crt,
			}},
			"another key": {configured(ca, crt, foreign.File("host.key"), "host", pass), []string{
				"ipam.pool.etcd.certFile and keyFile: " + crt + " and " + foreign.File("host.key") + ": tls: private key does not match public key", "; give a certificate in PEM format and its private key",
			}},
			"no authority file": {configured(own.File("none"), crt, key, "host", pass), []string{
				"ipam.pool.etcd.caFile: open " + own.File("none") + ": no such file", "; name the file with the certificates that sign those of etcd",
			}},
			"password": {configured(ca, crt, key, "host", own.File("wrong")), []string{
				"ipam.pool.etcd.passwordFile: " + own.File("wrong") + " does not have the password of user host: ", "; write the password of this user into the file",
			}},
			"no password file": {configured(ca, crt, key, "host", own.File("none")), []string{
				"ipam.pool.etcd.passwordFile: open " + own.File("none") + ": no such file", "; write the password of user host into the file",
			}},
			"empty password file": {configured(ca, crt, key, "host", os.DevNull), []string{
				"ipam.pool.etcd.passwordFile: /dev/null is empty; write the password of user host into the file",
			}},
			"role": {configured(ca, crt, key, "stranger", pass), []string{
				"ipam.pool.etcd.prefix: user stranger may not read and write the keys below /bridgeveth/: ", "etcdserver: permission denied; grant these rights to a role of the user",
			}},
			"role of the certificate": {configured(ca, own.File("stranger.crt"), own.File("stranger.key"), "", ""), []string{
				"ipam.pool.etcd.prefix: the user of certificate " + own.File("stranger.crt") + " may not read and write the keys below /bridgeveth/: ", "etcdserver: permission denied; grant these rights to a role of the user",
			}},
		} {
			add, claim := newMachine(t, bin, "a", port+30), newMachine(t, bin, "b", port+30)
			add.configure(tt.etcd)
			claim.configure(tt.etcd)
			all.Go(func() {
				_, err := add.call("ADD", "c1")
				add.refused(name, fmt.Sprint(err), tt.want, secrets)
			})
			all.Go(func() {
				out, err := claim.command("bridgeveth-pool", "claim", "--conf-dir", claim.conf).CombinedOutput()
				claim.refused(name, fmt.Sprint(err, string(out)), tt.want, secrets)
			})
		}
		all.Wait()
		if !seen() {
			t.Error("no process bridgeveth-pool was seen")
		}
		if n := keys("/"); n != 0 {
			t.Errorf("after all errors, etcd has %d keys", n)
		}

		for name, etcd := range map[string]string{
			"b": configured(ca, crt, key, "host", pass), "c": configured(ca, crt, key, "", ""),
		} {
			m := newMachine(t, bin, name, port+30)
			m.configure(etcd)
			m.works(func() bool { return keys("/bridgeveth/v1/alive/") == 1 })
		}
		if all, own := keys("/"), keys("/bridgeveth/"); all != own {
			t.Errorf("%d of %d keys are outside of the prefix", all-own, all)
		}
	})
}

// addRole adds a role by the commands of docs/pool.md.
func addRole(t *testing.T, c *etcdtest.Cluster) {
	t.Helper()
	text, err := os.ReadFile("../../docs/pool.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^etcdctl role add (\S+)\netcdctl role grant-permission (\S+) --prefix=true readwrite (\S+)$`).FindSubmatch(text)
	if commands == nil {
		t.Fatal("docs/pool.md does not have the commands that add a role")
	}
	c.AddRole(string(commands[1]))
	c.Allow(string(commands[2]), string(commands[3]))
}

// secrets returns texts that must not appear anywhere.
func secrets(t *testing.T, authorities ...*etcdtest.Authority) (list []string) {
	t.Helper()
	for _, a := range authorities {
		for _, name := range []string{"host", "stranger", "expired"} {
			text, err := os.ReadFile(a.File(name + ".key"))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, strings.Split(string(text), "\n")[1])
		}
	}
	return append(list, "secret-password")
}

// watchProcesses looks for secrets in the arguments and the environment of all processes, until
// the function seen is called. It reports whether a process of bridgeveth-pool was among them.
func watchProcesses(t *testing.T, secrets []string) (seen func() bool) {
	stop, done := make(chan bool), make(chan bool)
	go func() {
		found := false
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/*")
			for _, path := range files {
				if name := filepath.Base(path); name != "cmdline" && name != "environ" {
					continue
				}
				text, _ := os.ReadFile(path) // the process may have ended
				found = found || bytes.Contains(text, []byte("bridgeveth-pool\x00claim\x00"))
				for _, s := range secrets {
					if bytes.Contains(text, []byte(s)) {
						t.Errorf("%s has a secret", path)
					}
				}
			}
			select {
			case <-stop:
				done <- found
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() bool {
		close(stop)
		return <-done
	}
}

// refused checks that the error of a command has the given parts and no secret, and that the
// command has left nothing.
func (m *machine) refused(name, text string, want, secrets []string) {
	m.t.Helper()
	for _, part := range want {
		if !strings.Contains(text, part) {
			m.t.Errorf("%s: %s\nwant %s", name, text, part)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			m.t.Errorf("%s: a secret is in the error: %s", name, text)
		}
	}
	err := filepath.WalkDir(m.run, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				m.t.Errorf("%s: file %s has a secret", name, path)
			}
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
	store, err := ipam.Open(filepath.Join(m.run, "ipam-simple"), time.Second)
	if err != nil {
		m.t.Error(err)
		return
	}
	defer store.Close()
	leases, err := store.Leases("net")
	_, blocks, known, wrong := store.Blocks("net")
	if err != nil || wrong != nil || len(leases)+len(blocks) > 0 || known {
		m.t.Errorf("the store has %v and %v: %v, %v", leases, blocks, err, wrong)
	}
}

// works checks that ADD, DEL and both commands of bridgeveth-pool succeed.
func (m *machine) works(alive func() bool) {
	m.t.Helper()
	if address, err := m.call("ADD", "c1"); err != nil || address == "" {
		m.t.Errorf("ADD: %s, %v", address, err)
	}
	if _, err := m.call("DEL", "c1"); err != nil {
		m.t.Errorf("DEL: %v", err)
	}
	if out, err := m.command("bridgeveth-pool", "claim", "--conf-dir", m.conf).CombinedOutput(); err != nil || len(out) > 0 {
		m.t.Errorf("claim: %v: %s", err, out)
	}
	serve := m.command("bridgeveth-pool", "serve", "--conf-dir", m.conf)
	var log bytes.Buffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		m.t.Fatal(err)
	}
	for end := etcdtest.Deadline(m.t); !alive() && end.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
	}
	running := alive()
	_ = serve.Process.Signal(syscall.SIGTERM)
	if err := serve.Wait(); err != nil || !running || alive() || strings.Contains(log.String(), "etcdserver") {
		m.t.Errorf("serve: %v, key of the running service: %t, after the end: %t\n%s", err, running, alive(), log.String())
	}
}
