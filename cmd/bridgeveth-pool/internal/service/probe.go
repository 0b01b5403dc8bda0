package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// probeTime is how long probe waits for one member of etcd.
const probeTime = time.Second

// probe returns the reason why a client of etcd gets no answer, for each endpoint. The errors of the
// client itself often say only that the time is over.
func probe(e ipamconfig.Etcd) error {
	settings, err := readTLS(e)
	if err != nil {
		return err
	}
	var all []error
	for _, endpoint := range e.Endpoints {
		_, address, _ := strings.Cut(endpoint, "://")
		c, err := net.DialTimeout("tcp", address, probeTime)
		if err == nil && settings != nil {
			err = handshake(e, c, settings, address)
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

// handshake returns the error of the TLS handshake with a member of etcd.
func handshake(e ipamconfig.Etcd, c net.Conn, settings *tls.Config, address string) error {
	own := settings.Clone()
	own.ServerName, _, _ = net.SplitHostPort(address)
	own.NextProtos = []string{"h2"}
	secure := tls.Client(c, own)
	_ = c.SetDeadline(time.Now().Add(probeTime))
	err := secure.Handshake()
	if err == nil {
		// The server checks the certificate of the client after the handshake of TLS 1.3.
		_, err = secure.Read(make([]byte, 1))
	}
	var unknown x509.UnknownAuthorityError
	var sent *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && secure.ConnectionState().HandshakeComplete:
		return nil
	case errors.As(err, &unknown):
		return fmt.Errorf("ipam.pool.etcd.caFile: %q does not contain the authority of the member's certificate: %w; %s", e.CAFile, err, cureCA)
	case errors.As(err, &sent) && sent.Op == "remote error":
		return refused(e, own, err)
	}
	return err
}

// refused explains why a member of etcd has ended the TLS handshake.
func refused(e ipamconfig.Etcd, own *tls.Config, err error) error {
	if len(own.Certificates) == 0 {
		return fmt.Errorf("ipam.pool.etcd.certFile: it is missing, and the member wants a certificate: %w; give certFile and keyFile", err)
	}
	leaf, parsed := x509.ParseCertificate(own.Certificates[0].Certificate[0])
	if parsed == nil && time.Now().After(leaf.NotAfter) {
		return fmt.Errorf("ipam.pool.etcd.certFile: %s has expired on %s: %w; renew the certificate", e.CertFile, leaf.NotAfter.Local().Format(time.DateTime), err)
	}
	return fmt.Errorf("ipam.pool.etcd.certFile: the member refuses %s: %w; give a certificate that an authority of etcd has signed", e.CertFile, err)
}
