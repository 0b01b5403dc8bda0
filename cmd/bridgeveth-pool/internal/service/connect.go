// Package service fills the stock of a network: once, or as a service.
//
// Start with Session. connect.go makes the client of etcd, serve.go is the loop of the service.
package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// dialTimeout is how long the client tries to connect to one member of etcd.
const dialTimeout = 5 * time.Second

// connect returns a client of etcd. Only a login by name and password waits for etcd. No error
// contains a password or a key.
func connect(e ipamconfig.Etcd) (*clientv3.Client, *tls.Config, error) {
	c := clientv3.Config{
		Endpoints: e.Endpoints, DialTimeout: dialTimeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		Username: e.Username, Logger: zap.NewNop(),
	}
	var err error
	if strings.HasPrefix(e.Endpoints[0], "https://") {
		if c.TLS, err = readTLS(e); err != nil {
			return nil, nil, err
		}
	}
	if e.PasswordFile != "" {
		password, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("ipam.pool.etcd.passwordFile: %w", err)
		}
		if c.Password = strings.TrimRight(string(password), "\r\n"); c.Password == "" {
			return nil, nil, fmt.Errorf("ipam.pool.etcd.passwordFile: %s is empty; write the password of user %s into the file", e.PasswordFile, e.Username)
		}
	}
	client, err := clientv3.New(c)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("etcd unreachable: %w", probe(e.Endpoints, c.TLS))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return client, c.TLS, nil
}

// readTLS reads the certificates. Without caFile, those of the system count.
func readTLS(e ipamconfig.Etcd) (*tls.Config, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		text, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ipam.pool.etcd.caFile: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ipam.pool.etcd.caFile: %s has no certificate in PEM format; name the file with the certificates that sign those of etcd", e.CAFile)
		}
	}
	if e.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("ipam.pool.etcd.certFile and keyFile: %w; give a certificate in PEM format and its private key", err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// probeTime is how long probe waits for one member of etcd.
const probeTime = time.Second

// probe returns the reason why a client of etcd gets no answer, for each endpoint. The errors of the
// client itself often say only that the time is over.
func probe(endpoints []string, settings *tls.Config) error {
	var all []error
	for _, endpoint := range endpoints {
		scheme, address, _ := strings.Cut(endpoint, "://")
		c, err := net.DialTimeout("tcp", address, probeTime)
		if err == nil && scheme == "https" {
			own := settings.Clone()
			own.ServerName, _, _ = net.SplitHostPort(address)
			own.NextProtos = []string{"h2"}
			secure := tls.Client(c, own)
			_ = c.SetDeadline(time.Now().Add(probeTime))
			if err = secure.Handshake(); err == nil {
				// The server checks the certificate of the client after the handshake of TLS 1.3.
				_, err = secure.Read(make([]byte, 1))
			}
			if errors.Is(err, os.ErrDeadlineExceeded) && secure.ConnectionState().HandshakeComplete {
				err = nil
			}
		}
		if c != nil {
			c.Close()
		}
		if err == nil {
			err = errors.New("the member accepts connections, but it does not answer; check the health of etcd")
		}
		all = append(all, fmt.Errorf("%s: %w", endpoint, err))
	}
	return errors.Join(all...)
}
