package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

func TestMain(m *testing.M) { etcdtest.Main(m) }

// certificate writes NAME.crt and NAME.key, signed by itself. It is an authority, a server and a client.
func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: signed}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, path), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTLS claims blocks from an etcd that wants a certificate of its clients, with right and wrong
// files.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, "right")
	certificate(t, dir, "wrong")
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"empty": "\n", "password": "secret\n"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	etcd := exec.Command("etcd", "--data-dir", in("data"), "--listen-client-urls=https://127.0.0.1:2399", "--advertise-client-urls=https://127.0.0.1:2399",
		"--listen-peer-urls=http://127.0.0.1:2398", "--initial-advertise-peer-urls=http://127.0.0.1:2398", "--initial-cluster=default=http://127.0.0.1:2398",
		"--cert-file", in("right.crt"), "--key-file", in("right.key"), "--trusted-ca-file", in("right.crt"), "--client-cert-auth")
	etcd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = etcd.Process.Kill()
		_ = etcd.Wait() // killed
	}()
	fill := func(keys string) error {
		conf := fmt.Sprintf(`{"name": "net", "ipam": {"subnet": "10.1.0.0/24", "pool": {"etcd": {"endpoints": ["https://127.0.0.1:2399"], %s}}}}`, strings.ReplaceAll(keys, "DIR", dir))
		c, err := ipamconfig.Read(&skel.CmdArgs{StdinData: []byte(conf)})
		if err != nil {
			t.Fatal(err)
		}
		c.DataDir = in("store")
		s, err := Open(c, host.Host{ID: "a", Name: "a", Boot: "boot"})
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Fill(context.Background())
	}
	const right = `"caFile": "DIR/right.crt", "certFile": "DIR/right.crt", "keyFile": "DIR/right.key"`
	err := fill(right)
	for range 5 { // etcd may need longer to start than one Fill waits
		if err == nil {
			break
		}
		err = fill(right)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ keys, want string }{
		{`"caFile": "DIR/wrong.crt", "certFile": "DIR/right.crt", "keyFile": "DIR/right.key"`, "https://127.0.0.1:2399: tls: failed to verify certificate: x509: "},
		{`"caFile": "DIR/right.crt", "certFile": "DIR/wrong.crt", "keyFile": "DIR/wrong.key"`, "https://127.0.0.1:2399: remote error: tls: "},
		{`"caFile": "DIR/right.crt"`, "https://127.0.0.1:2399: remote error: tls: "},
		{`"caFile": "DIR/empty"`, "ipam.pool.etcd.caFile: " + in("empty") + " has no certificate in PEM format"},
		{`"caFile": "DIR/none"`, "ipam.pool.etcd.caFile: open " + in("none") + ": no such file"},
		{`"certFile": "DIR/right.crt", "keyFile": "DIR/wrong.key"`, "ipam.pool.etcd.certFile and keyFile: tls: private key does not match public key"},
		{right + `, "username": "u", "passwordFile": "DIR/empty"`, "ipam.pool.etcd.passwordFile: " + in("empty") + " is empty; write the password of user u into the file"},
		{right + `, "username": "u", "passwordFile": "DIR/none"`, "ipam.pool.etcd.passwordFile: open " + in("none") + ": no such file"},
		{right + `, "username": "u", "passwordFile": "DIR/password"`, ""},
	} {
		err := fill(tt.keys)
		if text := fmt.Sprint(err); !strings.Contains(text, tt.want) || tt.want != "" && err == nil || strings.Contains(text, "secret") {
			t.Errorf("%s:\n%v\nwant %s", tt.keys, err, tt.want)
		}
	}
}
