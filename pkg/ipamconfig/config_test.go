package ipamconfig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// network returns a configuration with a value for the key "ipam".
func network(ipam string) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "bridgeveth", "bridge": "br0", "ipam": %s}`, ipam)
}

// describe returns sets of ranges as one line of text: each range with its gateway.
func describe(sets []ipam.Set) string {
	var all []string
	for _, set := range sets {
		var ranges []string
		for _, r := range set {
			onRequest := map[bool]string{true: " on request"}[r.OnRequest]
			ranges = append(ranges, fmt.Sprintf("%s/%d via %s%s", r, r.Subnet.Bits(), r.Gateway, onRequest))
		}
		all = append(all, strings.Join(ranges, ", "))
	}
	return strings.Join(all, "; ")
}

func TestReadConfig(t *testing.T) {
	for _, tt := range []struct{ name, ipam, want string }{
		{"one subnet", `{"type": "ipam-simple", "subnet": "10.1.0.0/16"}`, "10.1.0.1-10.1.255.254/16 via 10.1.0.1"},
		{"all keys of one range", `{"subnet": "10.1.0.0/16", "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.9", "gateway": "10.1.0.9"}`,
			"10.1.2.3-10.1.2.9/16 via 10.1.0.9"},
		{"empty strings", `{"subnet": "10.1.0.0/16", "rangeStart": "", "rangeEnd": "", "gateway": "", "dataDir": "", "resolvConf": ""}`,
			"10.1.0.1-10.1.255.254/16 via 10.1.0.1"},
		{"keys in any case", `{"SUBNET": "10.1.0.0/16", "rangestart": "10.1.2.3", "Ranges": [[{"Subnet": "fd00::/64"}]]}`,
			"10.1.2.3-10.1.255.254/16 via 10.1.0.1; fd00::1-fd00::ffff:ffff:ffff:ffff/64 via fd00::1"},
		{"one subnet and ranges", `{"ranges": [[{"subnet": "10.2.0.0/24"}, {"subnet": "10.3.0.0/24"}], [{"subnet": "10.4.0.0/24"}]], "subnet": "10.1.0.0/24"}`,
			"10.1.0.1-10.1.0.254/24 via 10.1.0.1; 10.2.0.1-10.2.0.254/24 via 10.2.0.1, 10.3.0.1-10.3.0.254/24 via 10.3.0.1; 10.4.0.1-10.4.0.254/24 via 10.4.0.1"},
		{"IPv4-mapped gateway", `{"subnet": "10.1.0.0/16", "gateway": "::ffff:10.1.0.9"}`, "10.1.0.1-10.1.255.254/16 via 10.1.0.9"},
		{"excluded and static", `{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100", "exclude": ["10.1.0.200-10.1.0.254"], "static": ["10.1.0.8/29"]}`,
			"10.1.0.100-10.1.0.199/24 via 10.1.0.1, 10.1.0.8-10.1.0.15/24 via 10.1.0.1 on request"},
		{"two ranges of a subnet", `{"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9"}, {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.20"}]]}`,
			"10.1.0.1-10.1.0.9/24 via 10.1.0.1, 10.1.0.20-10.1.0.254/24 via 10.1.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(&skel.CmdArgs{StdinData: []byte(network(tt.ipam))})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, describe(c.Sets)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.DataDir != ipam.DefaultDir {
				t.Errorf("dataDir %s", c.DataDir)
			}
		})
	}
}

// TestReadConfigOuterKeys checks that keys of bridgeveth are not confused with keys of the same
// name below "ipam".
func TestReadConfigOuterKeys(t *testing.T) {
	c, err := ReadNetwork([]byte(`{"name": "net", "type": "host-local", "dataDir": "/elsewhere", "importFrom": "/elsewhere", "ipam": {"type": "ipam-simple"}}`))
	if err != nil || c.Type != plugin.IPAMSimple || c.DataDir != ipam.DefaultDir || c.ImportFrom != defaultImport {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestReadConfigErrors(t *testing.T) {
	const prefix = "network net: "
	for _, tt := range []struct {
		name, conf string
		code       uint
		want       string
	}{
		{"no JSON", `{"name": `, 6, "configuration is no JSON object: unexpected end of JSON input"},
		{"no name", `{"cniVersion": "1.1.0"}`, 7, "name: it is missing; give the network a name"},
		{"no ipam", `{"name": "net"}`, 7, prefix + `ipam: it is missing; give {"type": "ipam-simple", "subnet": "10.1.0.0/16"}`},
		{"ipam is no object", network(`7`), 7, "ipam: a JSON number instead of an object"},
		{"no range", network(`{}`), 7, prefix + `ipam.ranges: no range is configured; add "ranges" or "subnet"`},
		{"empty set", network(`{"ranges": [[]]}`), 7, prefix + "ipam.ranges[0]: the set is empty; add a range, or delete the set"},
		{"misspelt", network(`{"subnet": "10.1.0.0/16", "rangeStrat": "10.1.0.9"}`), 2, prefix + `ipam.rangeStrat: unknown key, with value "10.1.0.9"; did you mean "rangeStart"?`},
		{"misspelt in a range", network(`{"ranges": [[{"subnet": "10.1.0.0/16", "gatway": "10.1.0.9"}]]}`), 2,
			prefix + `ipam.ranges[0][0].gatway: unknown key, with value "10.1.0.9"; did you mean "gateway"?`},
		{"misspelt in a route", network(`{"subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0", "via": "10.1.0.9"}]}`), 2,
			prefix + `ipam.routes[0].via: unknown key, with value "10.1.0.9"`},
		{"all at once", network(`{"subnet": "10.1.0.7/16", "gateway": "10.1.0.0", "ranges": [[{"subnet": "ten"}, {"rangeStart": "x"}]], "routes": [{"gw": "y"}], "resolvConf": "/none"}`), 7,
			prefix + "ipam.subnet: 10.1.0.7/16 has host bits set; write 10.1.0.0/16; " +
				"ipam.gateway: 10.1.0.0 is not a usable address of subnet 10.1.0.0/16; give an address from 10.1.0.1 to 10.1.255.254; " +
				`ipam.ranges[0][0].subnet: "ten" is not a subnet; write it as 10.1.0.0/16 or fd00:1::/64; ` +
				`ipam.ranges[0][1].rangeStart: "x" is not an IP address; give an address of the subnet, or delete the key; ` +
				"ipam.ranges[0][1].subnet: it is missing; give one, such as 10.1.0.0/16; " +
				`ipam.routes[0].dst: "" is not a subnet; write it as 0.0.0.0/0 or fd00:1::/64; ` +
				`ipam.routes[0].gw: "y" is not an IP address; write one, or delete the key to use the gateway of the range; ` +
				"ipam.resolvConf: open /none: no such file or directory; name a file that exists, or delete the key"},
		{"wrong type", network(`{"subnet": 10}`), 7, prefix + `ipam.subnet: a JSON number instead of a string; ipam.ranges: no range is configured; add "ranges" or "subnet"`},
		{"mixed families", network(`{"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "fd00::/64"}]]}`), 7,
			prefix + "ipam.ranges: 10.1.0.1-10.1.255.254 and fd00::1-fd00::ffff:ffff:ffff:ffff are of different address families in one set; make a set for each family"},
		{"overlap in a set", network(`{"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "10.1.2.0/24"}]]}`), 7,
			prefix + "ipam.ranges: 10.1.0.1-10.1.255.254 and 10.1.2.1-10.1.2.254 overlap; change their bounds, since an address can be in one range only"},
		{"overlap of sets", network(`{"subnet": "10.1.0.0/16", "ranges": [[{"subnet": "10.1.2.0/24"}]]}`), 7,
			prefix + "ipam.ranges: 10.1.0.1-10.1.255.254 and 10.1.2.1-10.1.2.254 overlap; change their bounds, since an address can be in one range only"},
		{"gateway of another range", network(`{"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9", "gateway": "10.1.0.254"}, {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.20"}]]}`), 7,
			prefix + "ipam.ranges: 10.1.0.20-10.1.0.254 gives out 10.1.0.254, which is the gateway of 10.1.0.1-10.1.0.9; give both ranges the same gateway, or change their bounds"},
		{"exclude", network(`{"subnet": "10.1.0.0/24", "exclude": ["10.1.0.9-"], "static": ["10.1.1.0/24"]}`), 7,
			prefix + `ipam.exclude[0]: "10.1.0.9-" is not an address, subnet or interval; write it as 10.1.0.9, 10.1.0.64/28 or 10.1.0.9-10.1.0.20`},
		{"static outside the subnet", network(`{"ranges": [[{"subnet": "10.1.0.0/24", "static": ["10.1.1.0/24"]}]]}`), 7,
			prefix + "ipam.ranges[0][0].static: 10.1.1.0-10.1.1.255 is not within the usable addresses of subnet 10.1.0.0/24; give addresses from 10.1.0.1 to 10.1.0.254"},
		{"sticky", network(`{"subnet": "10.1.0.0/24", "sticky": "a day"}`), 7, prefix + `ipam.sticky: "a day" is not a positive duration; write it as 30m or 24h`},
		{"sticky for no time", network(`{"subnet": "10.1.0.0/24", "sticky": "0s"}`), 7, prefix + `ipam.sticky: "0s" is not a positive duration; write it as 30m or 24h`},
		{"ranges of the runtime", `{"cniVersion": "1.0.0", "name": "net", "ipam": {"subnet": "10.1.0.0/24"}, "runtimeConfig": {"ipRanges": [[{"Subnet": "10.1.0.0/25", "RangeStart": ""}]]}}`, 7,
			prefix + "ipam.ranges: 10.1.0.1-10.1.0.126 and 10.1.0.1-10.1.0.254 overlap; change their bounds, since an address can be in one range only"},
		{"a capability of the wrong type", `{"name": "net", "ipam": {"subnet": "10.1.0.0/24"}, "runtimeConfig": {"ips": "10.1.0.9"}}`, 7,
			prefix + "runtimeConfig.ips: a JSON string instead of a list"},
		{"no address", `{"name": "net", "ipam": {"subnet": "10.1.0.0/24"}, "args": {"cni": {"ips": ["10.1.0.9/99"]}}}`, 7,
			prefix + `args.cni.ips: "10.1.0.9/99" is not an IP address; write it as 10.1.0.9 or fd00:1::9/64`},
		{"pool without etcd", network(`{"subnet": "10.1.0.0/24", "pool": {}}`), 7, prefix + `ipam.pool.etcd: it is missing; give {"endpoints": ["https://10.0.0.1:2379"]}`},
		{"pool with a password but no TLS", network(`{"subnet": "10.1.0.0/24", "pool": {"etcd": {"endpoints": ["http://a:1", "https://a:2"], "username": "u", "passwordFile": "/p"}}}`), 7,
			prefix + `ipam.pool.etcd.endpoints[0]: "http://a:1" does not use TLS, and caFile, certFile or username is set; write https://, or delete these keys; ` +
				`ipam.pool.etcd.endpoints[1]: "http://a:1" and "https://a:2" differ in http and https; use https for all members, or for none`},
		{"misspelt in a pool", network(`{"subnet": "10.1.0.0/24", "pool": {"blocks": 26, "etcd": {"endpoints": ["http://a:1"], "certfiles": "/x"}}}`), 2,
			prefix + `ipam.pool.blocks: unknown key, with value 26; did you mean "block"?; ipam.pool.etcd.certfiles: unknown key, with value "/x"; did you mean "certFile"?`},
		{"pool, all at once", network(`{"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "fd00::/64"}]], "dataDir": "/x", "pool": {"block": 23, "block6": 129, "spare": 0,
			"etcd": {"endpoints": ["http://user:secret@a:1", "10.0.0.1:2379", "https://a:0", "https://[fd00::1:1"], "caFile": "ca.pem", "certFile": "/c", "username": "u"}}}`), 7,
			prefix + "ipam.pool.etcd.endpoints[0]: the URL contains a user or a password; use the keys username and passwordFile; " +
				`ipam.pool.etcd.endpoints[1]: "10.0.0.1:2379" is not a URL of etcd; write it as https://10.0.0.1:2379; ` +
				`ipam.pool.etcd.endpoints[2]: "https://a:0" is not a URL of etcd; write it as https://10.0.0.1:2379; ` +
				`ipam.pool.etcd.endpoints[3]: "https://[fd00::1:1" is not a URL of etcd; write it as https://10.0.0.1:2379; ` +
				`ipam.pool.etcd.caFile: "ca.pem" is a relative path; give an absolute path; ` +
				"ipam.pool.etcd.certFile: keyFile is missing; give both keys, or neither; " +
				"ipam.pool.etcd.username: passwordFile is missing; give both keys, or neither; " +
				"ipam.pool.spare: 0 is not between 1 and 64; give the number of blocks to keep in stock; " +
				`ipam.dataDir: "/x" cannot be used with ipam.pool, because two stores of a host would give out the same addresses; delete the key; ` +
				"ipam.pool.block: /23 is no part of subnet 10.1.0.0/24; give a number from 24 to 32; " +
				"ipam.pool.block6: /129 is no part of subnet fd00::/64; give a number from 64 to 128"},
		{"old result", `{"cniVersion": "0.2.0", "name": "net", "ipam": {"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.2.0.0/16"}]]}}`, 7,
			prefix + "cniVersion: a result of version 0.2.0 holds one address of each family; use 0.3.0 or newer for more sets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(&skel.CmdArgs{StdinData: []byte(tt.conf)})
			var e *types.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, %v", c, err)
			}
			if diff := cmp.Diff(tt.want, e.Msg); diff != "" || e.Code != tt.code {
				t.Errorf("code %d, want %d (-want +got):\n%s", e.Code, tt.code, diff)
			}
		})
	}
}

// TestReadRequest checks that addresses can be requested in three places: the capability "ips", the
// key "args", and CNI_ARGS.
func TestReadRequest(t *testing.T) {
	const conf = `{"name": "net", "ipam": {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "fd00::/64"}]], "sticky": "1h"}%s}`
	const capability, args = `, "runtimeConfig": {"ips": ["10.1.0.9/24", "fd00::9"]}`, `, "args": {"cni": {"ips": ["10.1.0.8"]}}`
	for _, tt := range []struct{ name, keys, args, want, by, pod string }{
		{"in no place", "", "", "[]", "CNI_ARGS: IP", ""},
		{"in all places", `, "runtimeConfig": {"IPs": ["10.1.0.9/24", "fd00::9"]}, "args": {"cni": {"ips": ["10.1.0.8"]}}`, "IP=10.1.0.7", "[10.1.0.9 fd00::9]", "runtimeConfig.ips", ""},
		{"capability", capability, "", "[10.1.0.9 fd00::9]", "runtimeConfig.ips", ""},
		{"an empty capability", `, "runtimeConfig": {"ips": [""]}` + args, "", "[10.1.0.8]", "args.cni.ips", ""},
		{"one address twice", `, "runtimeConfig": {"ips": ["10.1.0.9", "10.1.0.9/24"]}`, "", "[10.1.0.9]", "runtimeConfig.ips", ""},
		{"args", args, "IP=10.1.0.7", "[10.1.0.8]", "args.cni.ips", ""},
		{"environment", `, "args": {"other": 7}`, "IgnoreUnknown=1;IP=10.1.0.7/16,fd00::7;MAC=02:00:00:00:00:01", "[10.1.0.7 fd00::7]", "CNI_ARGS: IP", ""},
		{"environment without a value", "", "IP=;junk;=;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n", "[]", "CNI_ARGS: IP", "n/p"},
		{"IPv4-mapped address", "", "IP=::ffff:10.1.0.7", "[10.1.0.7]", "CNI_ARGS: IP", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(&skel.CmdArgs{StdinData: fmt.Appendf(nil, conf, tt.keys), Args: tt.args})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.Requested); got != tt.want || c.RequestedBy != tt.by || c.Pod != tt.pod {
				t.Errorf("got %s by %s for pod %q, want %s by %s for pod %q", got, c.RequestedBy, c.Pod, tt.want, tt.by, tt.pod)
			}
		})
	}
}

// FuzzCNIArgs checks that Read returns an error about CNI_ARGS only if the value of IP is
// wrong.
func FuzzCNIArgs(f *testing.F) {
	for _, args := range []string{"", "IP=10.1.0.7", "IgnoreUnknown=1;K8S_POD_NAME=p;IP=fd00::7/64,10.1.0.7;MAC=", "IP=ten", "IP=1;IP=", "a=b=c;;=;IP"} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		c, err := Read(&skel.CmdArgs{StdinData: []byte(network(`{"subnet": "10.1.0.0/24", "sticky": "1h"}`)), Args: args})
		var e *types.Error
		switch {
		case err == nil:
			if strings.Contains(c.Pod, ";") || len(c.Requested) > 0 && !strings.Contains(args, "IP=") {
				t.Errorf("requested %v for pod %q", c.Requested, c.Pod)
			}
		case !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig || !strings.Contains(args, "IP="):
			t.Error(err)
		}
	})
}

func TestReadResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(`# a comment
; nameserver 192.0.2.9
nameserver 192.0.2.1
nameserver	fd00::1
domain old.example
domain example.org
search a.example
search b.example c.example
options ndots:2
options edns0 trust-ad
sortlist 10.0.0.0
nameserver
`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readResolvConf(path)
	want := types.DNS{
		Nameservers: []string{"192.0.2.1", "fd00::1"}, Domain: "example.org",
		Search: []string{"b.example", "c.example"}, Options: []string{"ndots:2", "edns0", "trust-ad"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// FuzzResolvConf reads any text as resolv.conf. It checks that no value contains white space.
func FuzzResolvConf(f *testing.F) {
	for _, text := range []string{"nameserver 192.0.2.1\nsearch a b\noptions ndots:2", "nameserver\t", "domain x y", "#", "\x00search"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		dns, err := readResolvConf(path)
		for _, word := range slices.Concat(dns.Nameservers, dns.Search, dns.Options, []string{dns.Domain}) {
			if strings.ContainsAny(word, " \n\t") {
				t.Errorf("%q", word)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// FuzzReadConfig checks that Read returns either an error with a code, or a configuration. A
// call of Complete must not change the ranges of this configuration.
func FuzzReadConfig(f *testing.F) {
	f.Add(network(`{"type": "ipam-simple", "subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9", "routes": [{"dst": "0.0.0.0/0"}]}`))
	f.Add(network(`{"ranges": [[{"subnet": "10.1.0.0/31"}], [{"subnet": "fd00::/128"}]], "dataDir": "/x"}`))
	f.Fuzz(func(t *testing.T, conf string) {
		if strings.Contains(strings.ToLower(conf), "resolvconf") {
			return // Read would read the named file
		}
		c, err := Read(&skel.CmdArgs{StdinData: []byte(conf)})
		var e *types.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code == 0 || e.Code == types.ErrInternal || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			return
		}
		for i, set := range c.Sets {
			for j, r := range set {
				again, bad := r.Complete()
				if bad != nil || again != r || r.Size() == 0 || len(c.Sets) == 0 {
					t.Fatalf("accepted %d, %d: %v, %v", i, j, r, bad)
				}
			}
		}
	})
}
