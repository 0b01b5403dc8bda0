package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// connect returns a client of members of etcd. Only a login by name and password waits for etcd. No error
// contains a password or a key.
func connect(e ipamconfig.Etcd, members []string) (*clientv3.Client, error) {
	c := clientv3.Config{
		Endpoints: members, DialTimeout: answerTime, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		Username: e.Username, Logger: zap.NewNop(),
	}
	var err error
	if c.TLS, err = readTLS(e); err != nil {
		return nil, err
	}
	if e.PasswordFile != "" {
		password, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("ipam.pool.etcd.passwordFile: %w; write the password of user %s into the file", err, e.Username)
		}
		if c.Password = strings.TrimRight(string(password), "\r\n"); c.Password == "" {
			return nil, fmt.Errorf("ipam.pool.etcd.passwordFile: %s is empty; write the password of user %s into the file", e.PasswordFile, e.Username)
		}
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return client, nil
}

// readTLS reads the certificates. Without caFile, those of the system count. readTLS returns nil if
// etcd does not use TLS.
func readTLS(e ipamconfig.Etcd) (*tls.Config, error) {
	if !strings.HasPrefix(e.Endpoints[0], "https://") {
		return nil, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		text, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ipam.pool.etcd.caFile: %w; %s", err, cureCA)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ipam.pool.etcd.caFile: %s has no certificate in PEM format; %s", e.CAFile, cureCA)
		}
	}
	if e.CertFile == "" {
		return settings, nil
	}
	certificate, err := os.ReadFile(e.CertFile)
	if err != nil {
		return nil, fmt.Errorf("ipam.pool.etcd.certFile: %w; name the file with the certificate of this host", err)
	}
	key, err := os.ReadFile(e.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("ipam.pool.etcd.keyFile: %w; name the file with the private key of the certificate %s", err, e.CertFile)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("ipam.pool.etcd.certFile and keyFile: %s and %s: %w; give a certificate in PEM format and its private key", e.CertFile, e.KeyFile, err)
	}
	settings.Certificates = []tls.Certificate{pair}
	return settings, nil
}

const cureCA = "name the file with the certificates that sign those of etcd"

// explain adds the key of the configuration and the remedy to a refusal of etcd.
func explain(e ipamconfig.Etcd, err error) error {
	user := "user " + e.Username
	if e.Username == "" {
		user = "the user of certificate " + e.CertFile
	}
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("ipam.pool.etcd.passwordFile: %s does not have the password of user %s: %w; write the password of this user into the file", e.PasswordFile, e.Username, err)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("ipam.pool.etcd.username: etcd wants to know the user: %w; give username and passwordFile", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("ipam.pool.etcd.prefix: %s may not read and write the keys below %s/: %w; grant these rights to a role of the user: docs/pool.md", user, e.Prefix, err)
	}
	return err
}
