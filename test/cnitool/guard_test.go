package cnitool

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// These are the MAC and IP addresses of the first two containers, and headers of frames from the
// first container, all in hexadecimal.
const (
	mac, other   = "0a580a580002", "0a580a580003"
	all          = "ffffffffffff"
	ip           = "0800" + "4500003800000000400100000a58%s0a580003"
	ip6          = "86dd" + "6000000000103b40" + "fd8800000000000000000000000000%s" + "fd880000000000000000000000000003"
	arp          = "0806" + "0001080006040002" + mac + "0a58%s" + other + "0a580003"
	ownV4, byV4  = "0002", "0063"
	tagged       = "8100" + "0000"
	linkLocal    = "86dd" + "6000000000103b40" + "fe80000000000000" + "08580afffe580002" + "fd880000000000000000000000000003"
	unspecified  = "86dd" + "6000000000103b40" + "00000000000000000000000000000000" + "ff0200000000000000000001ff000002"
	somethingNew = "88b5"

	advertisement = "88000000e0000000" + "fd8800000000000000000000000000%s" + "0201" + mac
	fromTo        = "fd880000000000000000000000000002" + "fd880000000000000000000000000003"
	advertised    = "86dd" + "6000000000203aff" + fromTo + advertisement
	behindOptions = "86dd" + "60000000002800ff" + fromTo + "3a00010400000000" + advertisement // hop-by-hop options, RFC 8200
	behindHeader  = "86dd" + "6000000000282cff" + fromTo + "3a00000000000001" + advertisement // a fragment header of a whole packet
)

// guardedFrames are frames that the first container sends to the second.
var guardedFrames = []struct {
	name     string
	text     string
	mac, all bool // whether a guard of MAC addresses (mac), and a guard of MAC and IP addresses (all), accepts the frame
}{
	{"its own IPv4", other + mac + fmt.Sprintf(ip, ownV4), true, true},
	{"its own IPv6", other + mac + fmt.Sprintf(ip6, "02"), true, true},
	{"its own ARP", all + mac + fmt.Sprintf(arp, ownV4), true, true},
	{"its link-local address", other + mac + linkLocal, true, true},
	{"looking for duplicates", other + mac + unspecified, true, true},
	{"another MAC", all + "0a580a580009" + fmt.Sprintf(ip, ownV4), false, false},
	{"another MAC and ARP", all + "0a580a580009" + fmt.Sprintf(arp, ownV4), false, false},
	{"another IPv4", other + mac + fmt.Sprintf(ip, byV4), true, false},
	{"another IPv6", other + mac + fmt.Sprintf(ip6, "63"), true, false},
	{"ARP for another", all + mac + fmt.Sprintf(arp, byV4), true, false},
	{"advertising itself as a neighbour", other + mac + fmt.Sprintf(advertised, "02"), true, true},
	{"advertising the gateway as itself", other + mac + fmt.Sprintf(advertised, "01"), true, false},
	{"advertising itself behind options", other + mac + fmt.Sprintf(behindOptions, "02"), true, false},
	{"advertising the gateway behind options", other + mac + fmt.Sprintf(behindOptions, "01"), true, false},
	{"advertising the gateway behind a fragment header", other + mac + fmt.Sprintf(behindHeader, "01"), true, false},
	{"another IPv4 behind a tag", other + mac + tagged + fmt.Sprintf(ip, byV4), true, false},
	{"another protocol", all + mac + somethingNew, true, false},
}

// TestSpoofing checks that the guard (macspoofchk, ipspoofchk) drops frames with addresses of other
// containers. Without the guard, the second container must receive every frame.
func TestSpoofing(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "macspoofchk", "ipspoofchk"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			conf := dual
			if key != "" {
				conf = dual.with(object{key: true})
			}
			n := newNode(t, conf, "nft")
			for _, family := range []string{"ip", "ip6"} { // br_netfilter would drop frames with wrong checksums
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-"+family+"tables", "0")
			}
			c := n.containers(2)
			before := setuptest.Dump(t)
			n.must("add", c...)
			n.must("check", c...)
			for _, f := range guardedFrames {
				want := key == "" || key == "macspoofchk" && f.mac || key == "ipspoofchk" && f.all
				if got := passes(t, c[0], c[1], f.text); got != want {
					t.Errorf("%s: arrived: %v, want %v", f.name, got, want)
				}
			}
			for _, to := range []string{"10.88.0.3", "fd88::3", "10.88.0.1"} {
				if !setuptest.Ping(t, c[0], to) {
					t.Errorf("no answer from %s", to)
				}
			}
			if key != "" {
				setuptest.Run(t, "nft", "flush", "map", "bridge", "bridgeveth", "guarded")
				if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "guarded") {
					t.Errorf("CHECK does not report the missing guard: %v", err)
				}
			}
			n.must("del", c...)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestGuardCollected checks that GC sends the same number of messages for two stale guarded ports
// as for six. The guard's nftables sets hold the elements of all ports, so GC needs to read each
// set only once.
func TestGuardCollected(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true})
	newNode(t, conf, "nft").containers(6)
	before := setuptest.Dump(t)
	counts := map[int]int{}
	for _, ports := range []int{2, 6} {
		for i := range ports {
			on("ADD", i+1, conf).run(t).ok(t)
		}
		call{verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": []object{}})}.traced(t, func(c ptrace.Call) bool {
			if sends(c) {
				counts[ports]++
			}
			return true
		}).ok(t)
		setuptest.Same(t, before, "GC left traces")
	}
	if counts[2] == 0 || counts[6] != counts[2] {
		t.Errorf("GC of 2 ports sends %d messages, GC of 6 ports %d", counts[2], counts[6])
	}
}

// TestGuardRemoved checks that each form of DEL and GC removes the source filter (guard) of a port,
// and that another port keeps its guard.
func TestGuardRemoved(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true})
	port := setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port()
	valid := conf.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c2", "ifname": "eth0"}}})
	for _, tt := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"DEL", func(t *testing.T) { on("DEL", 1, conf).run(t).ok(t) }},
		{"DEL without the key", func(t *testing.T) { on("DEL", 1, dual).run(t).ok(t) }},
		{"DEL when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			on("DEL", 1, conf).run(t).ok(t)
		}},
		{"GC", func(t *testing.T) { call{verb: "GC", conf: valid}.run(t).ok(t) }},
		{"GC when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			call{verb: "GC", conf: valid}.run(t).ok(t)
		}},
		{"another ADD when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			on("ADD", 1, conf).run(t).ok(t)
			on("DEL", 1, conf).run(t).ok(t)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(2)
			on("ADD", 2, conf).run(t).ok(t)
			before := setuptest.Dump(t)
			on("ADD", 1, conf).run(t).ok(t)
			tt.do(t)
			setuptest.Same(t, before, "it left traces")
			on("DEL", 2, conf).run(t).ok(t)
		})
	}
}

// olderGuard replaces the guard's nftables table by the table of an older build. The older table
// guards the given containers on the given bridges. It differs from the current table: the map of
// guarded ports does not record the byte order of link names; there is no set for the targets of
// neighbour advertisements; the sets have the flag NFT_SET_CONCAT; and the rules have other
// comments.
func olderGuard(t testing.TB, bridges []string, containers ...int) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "bridgeveth", Family: nftables.TableFamilyBridge}
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	guardMAC := c.AddChain(&nftables.Chain{Name: "guard_mac", Table: table})
	guardIP := c.AddChain(&nftables.Chain{Name: "guard_address", Table: table})
	arriving := c.AddChain(&nftables.Chain{
		Name: "arriving", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	elements := map[string][]nftables.SetElement{}
	allow := func(set, port string, address ...byte) {
		key := append([]byte(port), make([]byte, unix.IFNAMSIZ-len(port))...)
		elements[set] = append(elements[set], nftables.SetElement{Key: append(key, address...)})
	}
	for _, i := range containers {
		a := setup.Attachment{Network: "net", Container: fmt.Sprintf("c%d", i), Interface: "eth0"}
		address := byte(i + 1)
		allow("guarded", a.Port())
		e := &elements["guarded"][len(elements["guarded"])-1]
		e.Comment, e.VerdictData = a.Port()+" "+a.String(), &expr.Verdict{Kind: expr.VerdictGoto, Chain: guardIP.Name}
		allow("macs", a.Port(), 0x0a, 0x58, 10, 88, 0, address, 0, 0)
		allow("addresses4", a.Port(), 0, 0, 0, 0)
		allow("addresses4", a.Port(), 10, 88, 0, address)
		allow("addresses6", a.Port(), make([]byte, 16)...)
		allow("addresses6", a.Port(), 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x08, 0x58, 10, 0xff, 0xfe, 88, 0, address)
		allow("addresses6", a.Port(), 0xfd, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, address)
	}
	add := func(s *nftables.Set) {
		s.Table = table
		if err := c.AddSet(s, elements[s.Name]); err != nil {
			t.Fatal(err)
		}
	}
	add(&nftables.Set{Name: "guarded", IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict})
	for name, kind := range map[string]nftables.SetDatatype{"macs": nftables.TypeEtherAddr, "addresses4": nftables.TypeIPAddr, "addresses6": nftables.TypeIP6Addr} {
		add(&nftables.Set{Name: name, Concatenation: true, KeyType: nftables.MustConcatSetType(nftables.TypeIFName, kind)})
	}
	rule := func(chain *nftables.Chain, comment string, exprs ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(exprs...), UserData: append([]byte{0, byte(len(comment) + 1)}, comment+"\x00"...)})
	}
	notIn := func(set string, base expr.PayloadBase, offset, length uint32) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Payload{Base: base, Offset: offset, Len: length, DestRegister: 2},
			&expr.Lookup{SourceRegister: 1, SetName: set, Invert: true}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}
	}
	is := func(load expr.Any, value ...byte) []expr.Any {
		return []expr.Any{load, &expr.Cmp{Register: 1, Data: value}}
	}
	protocol := &expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}
	rule(guardMAC, "mac", notIn("macs", expr.PayloadBaseLLHeader, 6, 6))
	rule(guardIP, "ip", is(protocol, 0x08, 0x00), notIn("addresses4", expr.PayloadBaseNetworkHeader, 12, 4))
	rule(guardIP, "arp", is(protocol, 0x08, 0x06), notIn("addresses4", expr.PayloadBaseNetworkHeader, 14, 4))
	rule(guardIP, "ip6", is(protocol, 0x86, 0xdd), notIn("addresses6", expr.PayloadBaseNetworkHeader, 8, 16))
	rule(guardIP, "neighbour", is(protocol, 0x86, 0xdd), is(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unix.IPPROTO_ICMPV6),
		is(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Len: 1, DestRegister: 1}, 136), notIn("addresses6", expr.PayloadBaseTransportHeader, 8, 16))
	others := []expr.Any{protocol, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x08, 0x00}}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x08, 0x06}}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x86, 0xdd}}}
	rule(guardIP, "others", others, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})
	rule(guardIP, "mac", []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: guardMAC.Name}})
	for _, bridge := range bridges {
		rule(arriving, bridge+" guard", []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, IsDestRegSet: true, SetName: "guarded"}})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestGuardUpgrade gives running containers the guard of an older build. It checks that CHECK
// accepts the older guard, and that the next ADD or `bvctl repair` replaces it in one transaction.
// During the replacement, the first container sends frames that both guards drop. None of these
// frames may arrive. At the end, nft(8) saves the ruleset and loads it again.
func TestGuardUpgrade(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true, "forward": "none"})
	another := conf.with(object{"name": "another", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	for _, by := range []string{"ADD", "repair"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, conf)
			for _, family := range []string{"ip", "ip6"} { // br_netfilter would drop frames with wrong checksums
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-"+family+"tables", "0")
			}
			c := n.containers(4)
			before := setuptest.Dump(t)
			first := on("ADD", 1, conf).run(t).ok(t)
			on("ADD", 2, conf).run(t).ok(t)
			on("ADD", 4, another).run(t).ok(t)
			olderGuard(t, []string{"br0", "br1"}, 1, 2)
			if rules := setuptest.Run(t, "nft", "list", "map", "bridge", "bridgeveth", "guarded"); !strings.Contains(rules, `""`) {
				t.Fatalf("nft prints the names in the older map, want empty names:\n%s", rules)
			}
			check := on("CHECK", 1, checking(conf, first))
			check.run(t).ok(t)

			generations := monitor(t)
			end := flood(t, c[0], c[1], other+mac+fmt.Sprintf(advertised, "01"))
			if by == "ADD" {
				on("ADD", 3, conf).run(t).ok(t)
			} else if out, status := bvctl(t, "repair"); status != 0 {
				t.Errorf("repair: status %d: %s", status, out)
			}
			if sent, arrived := end(); sent == 0 || arrived > 0 {
				t.Errorf("%d frames of %d arrived during the upgrade", arrived, sent)
			}
			made := slices.DeleteFunc(generations(), func(g string) bool { return !strings.Contains(g, "table bridge bridgeveth") })
			if len(made) != 1 || !strings.Contains(made[0], `comment "br1 guard"`) || !strings.Contains(made[0], "element bridge bridgeveth guarded") {
				t.Errorf("the table is not made in one transaction: %q", made)
			}
			for _, f := range guardedFrames {
				if got := passes(t, c[0], c[1], f.text); got != f.all {
					t.Errorf("%s: arrived: %v, want %v", f.name, got, f.all)
				}
			}
			check.run(t).ok(t)
			for _, u := range userlands {
				if u.present() {
					u.run(t, "nft list ruleset >/run/saved; nft -c -f /run/saved; nft flush ruleset; nft -f /run/saved")
					check.run(t).ok(t)
				}
			}
			for i := range 3 {
				on("DEL", i+1, conf).run(t).ok(t)
			}
			on("DEL", 4, another).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// monitor records the transactions of nf_tables. end stops the recording and returns the events
// of each transaction as one text.
func monitor(t testing.TB) (end func() []string) {
	t.Helper()
	record, err := os.Create("/run/monitor")
	if err != nil {
		t.Fatal(err)
	}
	defer record.Close()
	cmd := exec.Command("nft", "monitor")
	cmd.Stdout = record
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(record.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	await := func(table string) { // await changes the ruleset until nft records changes
		for !strings.Contains(read(), table) {
			setuptest.Run(t, "nft", "add table ip "+table+"; delete table ip "+table)
			time.Sleep(10 * time.Millisecond)
		}
	}
	await("begins")
	return func() []string {
		await("ends")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return strings.Split(read(), "# new generation")
	}
}
