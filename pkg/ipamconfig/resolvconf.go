package ipamconfig

import (
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// readResolvConf reads a file in the format of resolv.conf(5). If the file has several lines with
// "search", only the last one counts, as in that format. The same is true for "domain". If path is
// empty, readResolvConf returns the zero value.
func readResolvConf(path string) (dns types.DNS, err error) {
	if path == "" {
		return dns, nil
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return dns, fmt.Errorf("ipam.resolvConf: %w; name a file that exists, or delete the key", err)
	}
	for line := range strings.Lines(string(file)) {
		words := strings.Fields(line)
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
