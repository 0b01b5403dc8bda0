package bugreport

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// masker replaces names and addresses, each at all its places by the same text. Addresses of one
// subnet stay in one subnet.
type masker struct {
	key   [32]byte          // random, so that two reports have different masks
	names map[string]string // by the real name
	count map[string]int    // by the kind of name: how many names have a mask
	macs  map[string]string
}

// common are names that are the same on many hosts, so they say nothing about this host. Some of
// them are also words of the programs whose output is masked.
var common = []string{"", "lo", "all", "default", "eth0", "bridge", "host", "none", "bridgeveth", "cni0", "docker0", "kube-system", "localhost", "net", "ip", "inet"}

// newMasker returns a masker for the names that inv and the entries contain.
func newMasker(inv *inventory.Inventory, entries []Entry) (*masker, error) {
	m := &masker{names: map[string]string{}, count: map[string]int{}, macs: map[string]string{}}
	_, _ = rand.Read(m.key[:]) // it never fails
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	m.add("host", host)
	short, _, _ := strings.Cut(host, ".")
	m.add("host", short)
	if err := m.addContainers(inv); err != nil {
		return nil, err
	}
	for _, e := range entries {
		m.addFrom(e)
	}
	return m, nil
}

// add gives a name a mask.
func (m *masker) add(kind, name string) {
	if slices.Contains(common, name) || m.names[name] != "" {
		return
	}
	m.count[kind]++
	m.names[name] = fmt.Sprintf("%s%d", kind, m.count[kind])
}

// addContainers adds the names of containers, pods, networks and bridges.
func (m *masker) addContainers(inv *inventory.Inventory) error {
	ns, err := setup.CurrentHost()
	if err != nil {
		return err
	}
	defer ns.Close()
	quiet := *inv
	quiet.Warn = func(error) {} // "bvctl inspect", whose output is in the archive, has printed it
	networks := quiet.Networks()
	for _, n := range networks {
		m.add("network", n.Name)
		m.add("link", n.Bridge)
	}
	all, _ := quiet.Containers(ns, networks) // the list is valid in spite of an error
	for _, c := range all {
		m.add("network", c.Network)
		m.add("link", c.Bridge)
		m.add("link", c.Port.Name)
		m.add("link", c.Interface)
		m.addContainer(c.Container)
		m.addPath(c.Namespace)
		if namespace, pod, found := strings.Cut(c.Pod, "/"); found {
			m.add("namespace", namespace)
			m.add("pod", pod)
		}
	}
	return nil
}

// addContainer adds the ID of a container, also in the short form that runtimes print.
func (m *masker) addContainer(id string) {
	m.add("container", id)
	if len(id) == 64 && m.names[id[:12]] == "" {
		m.names[id[:12]] = m.names[id]
	}
}

// addPath adds the last element of the path of a network namespace.
func (m *masker) addPath(path string) { m.add("netns", path[strings.LastIndex(path, "/")+1:]) }

// found are patterns of names in the outputs of programs and in libcni's files.
var found = []struct {
	kind    string
	pattern *regexp.Regexp
}{
	{"link", regexp.MustCompile(`(?m)^\d+: ([^:@\s]+)`)},
	{"link", regexp.MustCompile(`(?m)^\d+: [^:@\s]+@([^:\s]+)`)},
	{"link", regexp.MustCompile(`(?m)\baltname (\S+)`)},
	// Rules may have names of links that do not exist at present.
	{"link", regexp.MustCompile(`\b(?:[io]ifname|device) (?:!= )?"([^"*]+)"`)},
	{"link", regexp.MustCompile(`(?m)^\[.* -i ([\w.-]+)(?: |$)`)},
	{"link", regexp.MustCompile(`(?m)^\[.* -o ([\w.-]+)(?: |$)`)},
	{"netns", regexp.MustCompile(`\blink-netns (\S+)`)},
	{"netns", regexp.MustCompile(`/netns/([\w.-]+)`)},
	{"network", regexp.MustCompile(`(?m)^  "name": "([^"]+)"`)},
	{"network", regexp.MustCompile(`"(?:networkName|network)": "([^"]+)"`)},
	{"link", regexp.MustCompile(`"(?:ifName|interface|bridge|master)": "([^"]+)"`)},
	{"container", regexp.MustCompile(`"(?:containerId|container)": "([^"]+)"`)},
	{"pod", regexp.MustCompile(`"K8S_POD_(?:NAME|UID)",\s*"([^"]+)"`)},
	{"namespace", regexp.MustCompile(`"K8S_POD_NAMESPACE",\s*"([^"]+)"`)},
	{"container", regexp.MustCompile(`"K8S_POD_INFRA_CONTAINER_ID",\s*"([^"]+)"`)},
	{"pod", regexp.MustCompile(`"pod": "(?:[^"/]+/)?([^"]+)"`)},
	{"namespace", regexp.MustCompile(`"pod": "([^"/]+)/`)},
	{"host", regexp.MustCompile(`\b(?:peer node:|the agent of) ([\w.-]+)`)},
	// kube-proxy writes the names of services into comments.
	{"namespace", regexp.MustCompile(`comment "([a-z][a-z0-9-]*)/[a-z]`)},
	{"service", regexp.MustCompile(`comment "[a-z][a-z0-9-]*/([a-z][a-z0-9-]*)`)},
}

// addFrom adds the names in an entry.
func (m *masker) addFrom(e Entry) {
	for _, f := range found {
		for _, match := range f.pattern.FindAllStringSubmatch(string(e.Content), -1) {
			if f.kind == "container" {
				m.addContainer(match[1])
			} else {
				m.add(f.kind, match[1])
			}
		}
	}
}

var (
	wordPattern = regexp.MustCompile(`[A-Za-z0-9_.-]+`)
	macPattern  = regexp.MustCompile(`\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b`)
	v6Pattern   = regexp.MustCompile(`(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4})(?:/\d+)?`)
	v4Pattern   = regexp.MustCompile(`\b(?:\d{1,3}\.){3}\d{1,3}(?:/\d+)?\b`)
	aliasLine   = regexp.MustCompile(`(?m)^( +alias ).*`)    // the description of a link, in any words
	hexPattern  = regexp.MustCompile(`\b0x[0-9a-f]{9,32}\b`) // nft prints addresses of unknown type as one number
)

// mask replaces the names and addresses in a text.
func (m *masker) mask(text string) string {
	text = aliasLine.ReplaceAllString(text, "${1}MASKED")
	text = wordPattern.ReplaceAllStringFunc(text, m.maskWord)
	text = macPattern.ReplaceAllStringFunc(text, m.maskMAC)
	text = hexPattern.ReplaceAllString(text, "0xMASKED")
	text = v6Pattern.ReplaceAllStringFunc(text, m.maskAddress)
	return v4Pattern.ReplaceAllStringFunc(text, m.maskAddress)
}

// maskMAC returns the mask of a MAC address. It keeps the addresses of groups.
func (m *masker) maskMAC(mac string) string {
	mac = strings.ToLower(mac)
	if mac == "00:00:00:00:00:00" || mac == "ff:ff:ff:ff:ff:ff" || strings.HasPrefix(mac, "01:") || strings.HasPrefix(mac, "33:33:00:00:") {
		return mac
	}
	if m.macs[mac] == "" {
		n := len(m.macs) + 1
		m.macs[mac] = fmt.Sprintf("02:00:00:%02x:%02x:%02x", n>>16&0xff, n>>8&0xff, n&0xff)
	}
	return m.macs[mac]
}

// maskAddress returns the mask of an IP address or of a subnet.
func (m *masker) maskAddress(text string) string {
	bare, length, isSubnet := strings.Cut(text, "/")
	trimmed := strings.TrimRight(bare, ":")
	if strings.HasSuffix(bare, "::") {
		trimmed += "::"
	}
	a, err := netip.ParseAddr(trimmed)
	if err != nil || a.IsUnspecified() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.IsMulticast() && !solicited.Contains(a) {
		return text
	}
	masked := m.scramble(a)
	if p, err := netip.ParsePrefix(trimmed + "/" + length); isSubnet && err == nil && p == p.Masked() {
		masked = netip.PrefixFrom(masked, p.Bits()).Masked().Addr()
	}
	out := masked.String() + bare[len(trimmed):]
	if isSubnet {
		out += "/" + length
	}
	return out
}

// solicited contains multicast addresses that end with the last three bytes of another address.
var solicited = netip.MustParsePrefix("ff02::1:ff00:0/104")

// scramble returns another address. Two addresses have equally long common prefixes before and
// after. The first 8 bits (IPv4) or 16 bits (IPv6) stay, so private and link-local addresses can be
// recognized. The last 8 bits of an IPv4 address stay, so that a listing remains readable.
func (m *masker) scramble(a netip.Addr) netip.Addr {
	first, last := 16, 128
	if a.Is4() {
		first, last = 8, 24
	}
	from := a.AsSlice()
	to := slices.Clone(from)
	for bit := first; bit < last; bit++ {
		prefix, err := a.Prefix(bit)
		if err != nil {
			break
		}
		digest := sha256.Sum256(append(m.key[:], prefix.String()...))
		if bit == first || digest[0]&1 == 1 { // the first bit always changes, so no address is its own mask
			to[bit/8] ^= 0x80 >> (bit % 8)
		}
	}
	masked, _ := netip.AddrFromSlice(to)
	return masked
}

// maskWord replaces the names in a word. A name begins at the beginning of the word or beside one of
// the characters -._ and ends in the same way. If several names are at one place, the longest is
// replaced.
func (m *masker) maskWord(word string) (masked string) {
	var edges []int
	for i := range len(word) {
		if i == 0 || strings.IndexByte("-._", word[i]) >= 0 || strings.IndexByte("-._", word[i-1]) >= 0 {
			edges = append(edges, i)
		}
	}
	edges = append(edges, len(word))
	done := 0
	for i, begin := range edges {
		for j := len(edges) - 1; j > i && begin >= done; j-- {
			if mask, is := m.names[word[begin:edges[j]]]; is {
				masked += word[done:begin] + mask
				done = edges[j]
			}
		}
	}
	return masked + word[done:]
}
