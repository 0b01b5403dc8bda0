package ipamsimple

import (
	"bufio"
	"bytes"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// dns reads the file that resolvConf names, in the format of resolv.conf(5). As
// there, the last search or domain line counts.
func (s *settings) dns() (dns types.DNS, err error) {
	if s.ResolvConf == "" {
		return dns, nil
	}
	file, err := os.ReadFile(s.ResolvConf)
	if err != nil {
		return dns, plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.resolvConf: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(file)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, words[1])
		case "domain":
			dns.Domain = words[1]
		case "search":
			dns.Search = words[1:]
		case "options":
			dns.Options = append(dns.Options, words[1:]...)
		}
	}
	return dns, nil
}
