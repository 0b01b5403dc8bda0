package ipamconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const (
	defaultPrefix = "/bridgeveth"
	defaultBlock  = 26
	defaultBlock6 = 122
	defaultSpare  = 1
	maxSpare      = 64
)

// Pool has the keys below "ipam.pool". With these keys, hosts share the addresses of the ranges:
// docs/pool.md. Only cmd/bridgeveth-pool calls etcd and reads the files with secrets.
type Pool struct {
	Etcd   json.RawMessage `json:"etcd"`
	Block  int             `json:"block"`  // prefix length of an IPv4 block
	Block6 int             `json:"block6"` // prefix length of an IPv6 block
	Spare  int             `json:"spare"`  // number of blocks without a lease that a host keeps in stock

	Server Etcd `json:"-"`
}

// Etcd has the keys below "ipam.pool.etcd".
type Etcd struct {
	Endpoints    []string `json:"endpoints"`
	Prefix       string   `json:"prefix"`
	CAFile       string   `json:"caFile"`
	CertFile     string   `json:"certFile"`
	KeyFile      string   `json:"keyFile"`
	Username     string   `json:"username"`
	PasswordFile string   `json:"passwordFile"`
}

// BlockBits returns the prefix length of a block that contains addresses of a set.
func (p *Pool) BlockBits(set ipam.Set) int {
	if set[0].Start.Is4() {
		return p.Block
	}
	return p.Block6
}

// readPool reads the keys below "ipam.pool", and returns the mistakes. The caller must have read the
// sets of ranges.
func (c *Config) readPool(s *Keys) (bad []error) {
	if len(s.Pool) == 0 {
		return nil
	}
	p := &Pool{Block: defaultBlock, Block6: defaultBlock6, Spare: defaultSpare, Server: Etcd{Prefix: defaultPrefix}}
	bad = append(bad, c.decode(s.Pool, p, "ipam.pool."))
	if len(p.Etcd) == 0 {
		bad = append(bad, errors.New(`ipam.pool.etcd: it is missing; give {"endpoints": ["https://10.0.0.1:2379"]}`))
	} else {
		bad = append(bad, c.decode(p.Etcd, &p.Server, "ipam.pool.etcd."))
		bad = append(bad, p.Server.check()...)
	}
	if p.Spare < 1 || p.Spare > maxSpare {
		bad = append(bad, fmt.Errorf("ipam.pool.spare: %d is not between 1 and %d; give the number of blocks to keep in stock", p.Spare, maxSpare))
	}
	if s.DataDir != "" {
		bad = append(bad, fmt.Errorf("ipam.dataDir: %q cannot be used with ipam.pool, because two stores of a host would give out the same addresses; delete the key", s.DataDir))
	}
	c.Pool = p
	return append(bad, c.checkBlocks()...)
}

// checkBlocks compares the size of the blocks with the subnets of the ranges.
func (c *Config) checkBlocks() (bad []error) {
	done := map[string]bool{}
	for _, set := range c.Sets {
		for _, r := range set {
			bits, key := c.Pool.BlockBits(set), "block6"
			if r.Start.Is4() {
				key = "block"
			}
			if r.Subnet.Bits() > bits || bits > r.Start.BitLen() {
				mistake := fmt.Errorf("ipam.pool.%s: /%d is no part of subnet %s; give a number from %d to %d", key, bits, r.Subnet, r.Subnet.Bits(), r.Start.BitLen())
				if !done[mistake.Error()] {
					bad = append(bad, mistake)
				}
				done[mistake.Error()] = true
			}
		}
	}
	return bad
}

// check returns the mistakes in the keys. No error contains an endpoint with a password.
func (e *Etcd) check() (bad []error) {
	if len(e.Endpoints) == 0 {
		bad = append(bad, errors.New(`ipam.pool.etcd.endpoints: the list is empty; give the URLs of etcd, such as ["https://10.0.0.1:2379"]`))
	}
	e.Prefix = "/" + strings.Trim(cmp.Or(e.Prefix, defaultPrefix), "/")
	for i, endpoint := range e.Endpoints {
		if err := e.checkEndpoint(endpoint); err != nil {
			bad = append(bad, fmt.Errorf("ipam.pool.etcd.endpoints[%d]: %w", i, err))
		}
	}
	for _, file := range []struct{ key, path string }{
		{"caFile", e.CAFile}, {"certFile", e.CertFile}, {"keyFile", e.KeyFile}, {"passwordFile", e.PasswordFile},
	} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			bad = append(bad, fmt.Errorf("ipam.pool.etcd.%s: %q is a relative path; give an absolute path", file.key, file.path))
		}
	}
	for _, both := range []struct{ value, key, other, otherKey string }{
		{e.CertFile, "certFile", e.KeyFile, "keyFile"}, {e.Username, "username", e.PasswordFile, "passwordFile"},
	} {
		if both.value == "" {
			both.key, both.otherKey = both.otherKey, both.key
		}
		if (both.value == "") != (both.other == "") {
			bad = append(bad, fmt.Errorf("ipam.pool.etcd.%s: %s is missing; give both keys, or neither", both.key, both.otherKey))
		}
	}
	return bad
}

// checkEndpoint checks a URL of etcd. It does not use net/url, which would be paid at each start of
// the plugin.
func (e *Etcd) checkEndpoint(endpoint string) error {
	if strings.Contains(endpoint, "@") {
		return errors.New("the URL contains a user or a password; use the keys username and passwordFile")
	}
	scheme, address, _ := strings.Cut(endpoint, "://")
	colon := strings.LastIndexByte(address, ':')
	wrong := scheme != "http" && scheme != "https" || colon < 1 || strings.ContainsAny(address, "/?# ")
	if !wrong {
		port, err := strconv.ParseUint(address[colon+1:], 10, 16)
		wrong = err != nil || port == 0
	}
	if !wrong && strings.ContainsAny(address[:colon], "[]:") {
		host, opened := strings.CutPrefix(address[:colon], "[")
		host, closed := strings.CutSuffix(host, "]")
		a, err := netip.ParseAddr(host)
		wrong = !opened || !closed || err != nil || !a.Is6()
	}
	if wrong {
		return fmt.Errorf("%q is not a URL of etcd; write it as https://10.0.0.1:2379", endpoint)
	}
	if first, _, _ := strings.Cut(e.Endpoints[0], "://"); scheme != first {
		return fmt.Errorf("%q and %q differ in http and https; use https for all members, or for none", e.Endpoints[0], endpoint)
	}
	if scheme == "http" && e.CAFile+e.CertFile+e.Username != "" {
		return fmt.Errorf("%q does not use TLS, and caFile, certFile or username is set; write https://, or delete these keys", endpoint)
	}
	return nil
}
