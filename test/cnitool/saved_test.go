package cnitool

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// userland is a pair of the programs iptables and nft in one version. The field bin is their
// folder, or "" for the host's own programs.
type userland struct{ name, bin string }

// userlands are the host's own programs, and those of Debian releases that hack/userland.sh has
// downloaded.
var userlands = []userland{{"the host's", ""}, {"trixie", "../../.cache/userland/trixie/bin"}, {"sid", "../../.cache/userland/sid/bin"}}

// run runs a shell command with the programs of a userland.
func (u userland) run(t testing.TB, command string) string {
	t.Helper()
	path := os.Getenv("PATH")
	if u.bin != "" {
		bin, err := filepath.Abs(u.bin)
		if err != nil {
			t.Fatal(err)
		}
		path = bin + ":" + path
	}
	return setuptest.Run(t, "env", "PATH="+path, "sh", "-ec", command)
}

// present reports whether the programs of the userland are installed.
func (u userland) present() bool {
	_, err := os.Stat(filepath.Join(u.bin, "nft"))
	return u.bin == "" || err == nil
}

// eachUserland runs a test with each userland, each time on a host of its own.
func eachUserland(t *testing.T, test func(t *testing.T, u userland)) {
	t.Parallel()
	for _, u := range userlands {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			if !u.present() {
				t.Skip("LISTED SKIP: no programs of this release: run hack/userland.sh trixie sid")
			}
			test(t, u)
		})
	}
}

// TestSavedRuleset saves the ruleset by nft(8) while containers run, and loads it again, as
// Debian's nftables service does at each boot. nft prints iptables' match on conntrack as a native
// rule, and iptables cannot read a chain with such a rule. The test checks that the next ADD, or
// bvctl repair, replaces bridgeveth's chains, and that no call fails.
func TestSavedRuleset(t *testing.T) {
	eachUserland(t, func(t *testing.T, u userland) {
		conf := publishing(dual.with(object{"inbound": "established", "ingressPolicy": "same-bridge", "forwardMark": "0x100000", "masqExclude": []string{"192.0.2.128/25"}, "ipspoofchk": true}),
			object{"hostPort": 8080, "containerPort": 80})
		plain := conf.with(object{"runtimeConfig": object{}})
		n := newNode(t, plain)
		for _, family := range []string{"iptables", "ip6tables"} {
			u.run(t, family+" -P FORWARD DROP; "+family+"-save | "+family+"-restore") // iptables-restore makes the tables in another order
		}
		c := n.containers(3)
		outside := n.outside(true)
		serve(t, c[0], 80)
		before := setuptest.Dump(t)
		first := on("ADD", 1, conf).run(t).ok(t)
		second := on("ADD", 2, plain).run(t).ok(t)
		passes := func(when string) {
			t.Helper()
			if !setuptest.Ping(t, c[1], "10.88.0.2") || !setuptest.Ping(t, c[1], "fd88::2") || !setuptest.Ping(t, c[0], "192.0.2.2") {
				t.Errorf("%s: no answer", when)
			}
			if ask(t, outside, "tcp", "192.0.2.1", 8080) == "" {
				t.Errorf("%s: the host port does not answer", when)
			}
			on("CHECK", 1, checking(conf, first)).run(t).ok(t)
			on("CHECK", 2, checking(plain, second)).run(t).ok(t)
		}
		passes("after ADD")
		const reload = "nft list ruleset >/run/saved; nft flush ruleset; nft -f /run/saved"
		u.run(t, reload)
		on("STATUS", 0, plain).run(t).ok(t)
		on("ADD", 3, plain).run(t).ok(t)
		passes("loaded, after the next ADD")
		u.run(t, reload)
		if out, status := bvctl(t, "repair"); status != 0 {
			t.Errorf("repair: %s", out)
		}
		passes("loaded, after a repair")
		u.run(t, "iptables -S FORWARD; iptables -S BRIDGEVETH-FORWARD; ip6tables-save | ip6tables-restore")
		u.run(t, reload)
		for i, conf := range []object{conf, plain, plain} {
			on("DEL", i+1, conf).run(t).ok(t)
		}
		setuptest.Same(t, before, "DEL left traces")
	})
}

// TestIncompatibleChains checks that the doctor names exactly the chains that iptables cannot read.
// The chains contain all kinds of rules that nft(8) may have loaded, or Docker's rules after nft(8)
// has saved and loaded them.
func TestIncompatibleChains(t *testing.T) {
	eachUserland(t, func(t *testing.T, u userland) {
		n := newNode(t, dual)
		u.run(t, "I=iptables\n"+docker27+"I=ip6tables\n"+docker27+"iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE")
		n.must("add", n.containers(1)...)
		named := func() (names []string) {
			t.Helper()
			out, status := bvctl(t, "doctor")
			if status != 0 {
				t.Errorf("status %d: %s", status, out)
			}
			for _, m := range regexp.MustCompile(`chain (\S+ \S+ \S+): iptables refuses`).FindAllStringSubmatch(out, -1) {
				names = append(names, m[1])
			}
			slices.Sort(names)
			return names
		}
		refused := func() (names []string) {
			t.Helper()
			for _, table := range []string{"ip filter", "ip6 filter", "ip nat"} {
				family, name, _ := strings.Cut(table, " ")
				list := "nft list table " + table + " 2>/dev/null | sed -n 's/^.chain \\(.*\\) {/\\1/p'"
				for chain := range strings.FieldsSeq(u.run(t, list)) {
					if out := u.run(t, fmt.Sprintf("%stables -t %s -S %s 2>&1 || :", family, name, chain)); strings.Contains(out, "incompatible") {
						names = append(names, table+" "+chain)
					}
				}
			}
			slices.Sort(names)
			return names
		}
		if got := named(); len(got) > 0 {
			t.Errorf("at first the doctor names %q", got)
		}
		u.run(t, "nft list ruleset >/run/saved; nft flush ruleset; nft -f /run/saved")
		if out, status := bvctl(t, "repair"); status != 0 {
			t.Fatal(out)
		}
		if diff := cmp.Diff(refused(), named()); diff != "" || len(named()) == 0 {
			t.Errorf("iptables refuses, and the doctor names (-want +got):\n%s", diff)
		}
		for i, rule := range []string{
			"ct state established accept", "reject", `iifname "br0" ip saddr 10.0.0.0/8 tcp dport 80 counter drop`, "limit rate 5/second accept",
			"log prefix x group 5", "log level debug", "ip saddr { 10.0.0.1, 10.0.0.2 } accept", "tcp dport 80-90 accept", "meta mark 1 accept", "fib daddr type local accept",
		} {
			u.run(t, fmt.Sprintf("nft add chain ip filter kind%[1]d; nft 'add rule ip filter kind%[1]d %[2]s'", i, rule))
		}
		if diff := cmp.Diff(refused(), named()); diff != "" {
			t.Errorf("iptables refuses, and the doctor names (-want +got):\n%s", diff)
		}
	})
}

// TestIPTablesReads checks that iptables can list, check, delete, save and restore the rules that
// ADD has written by netlink, and that it can add rules of its own beside ADD's rules.
func TestIPTablesReads(t *testing.T) {
	eachUserland(t, func(t *testing.T, u userland) {
		n := newNode(t, dual)
		u.run(t, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -N DOCKER-ISOLATION-STAGE-2")
		n.must("add", n.containers(2)...)
		const want = `-N BRIDGEVETH-FORWARD
-A BRIDGEVETH-FORWARD -j BRIDGEVETH-ADMIN
-A BRIDGEVETH-FORWARD -i br0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A BRIDGEVETH-FORWARD -i br0 -j DOCKER-ISOLATION-STAGE-2
-A BRIDGEVETH-FORWARD -i br0 -j ACCEPT
-A BRIDGEVETH-FORWARD -o br0 -j ACCEPT
`
		if got := u.run(t, "iptables -S BRIDGEVETH-FORWARD"); got != want {
			t.Errorf("iptables lists:\n%s", got)
		}
		if got := u.run(t, "iptables -S FORWARD"); got != "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j BRIDGEVETH-FORWARD\n" {
			t.Errorf("iptables lists:\n%s", got)
		}
		saved := u.run(t, "iptables-save -t filter; ip6tables-save -t filter")
		u.run(t, "for f in iptables ip6tables; do $f-save >/run/saved; $f-restore </run/saved; done")
		u.run(t, "iptables -A FORWARD -s 192.0.2.9 -j ACCEPT; iptables -D FORWARD -s 192.0.2.9 -j ACCEPT; iptables -A BRIDGEVETH-ADMIN -s 192.0.2.9 -j DROP; iptables -F BRIDGEVETH-ADMIN")
		trim := func(text string) (rules string) {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "-") {
					rules += line
				}
			}
			return rules
		}
		if got := u.run(t, "iptables-save -t filter; ip6tables-save -t filter"); trim(got) != trim(saved) {
			t.Errorf("saved and restored:\n%s\nbefore:\n%s", trim(got), trim(saved))
		}
		for line := range strings.Lines(want) {
			if rule, found := strings.CutPrefix(strings.TrimSpace(line), "-A "); found {
				u.run(t, "iptables -C "+rule+"; iptables -D "+rule)
			}
		}
	})
}

// TestSavedIPTables saves the rules of iptables while containers run, flushes them and restores
// them. It checks that packets pass, and that CHECK, ADD and DEL succeed.
func TestSavedIPTables(t *testing.T) {
	for flavour, program := range map[string]string{"nft": "tables", "legacy": "tables-legacy"} {
		t.Run(flavour, func(t *testing.T) {
			eachUserland(t, func(t *testing.T, u userland) {
				conf := publishing(dual.with(object{"ipspoofchk": true, "ingressPolicy": "same-bridge", "forwardMark": "0x100000"}), object{"hostPort": 8080, "containerPort": 80})
				plain := conf.with(object{"runtimeConfig": object{}})
				n := newNode(t, conf, flavour)
				c, outside := n.containers(3), n.outside(false)
				serve(t, c[0], 80)
				each := func(command string) {
					t.Helper()
					u.run(t, strings.ReplaceAll(`for p in ip ip6; do `+command+`; done`, "PROGRAM", "${p}"+program))
				}
				each("PROGRAM-save >/run/empty-$p; PROGRAM-restore </run/empty-$p") // iptables-restore makes the tables in another order
				before := setuptest.Dump(t)
				first := on("ADD", 1, conf).run(t).ok(t)
				second := on("ADD", 2, plain).run(t).ok(t)
				each("PROGRAM-save >/run/saved-$p; PROGRAM-restore </run/empty-$p")
				if f := on("CHECK", 2, checking(plain, second)).run(t).failed(t); !strings.Contains(f.Msg, "filter FORWARD: missing") {
					t.Errorf("after the flush: got %+v", f)
				}
				each("PROGRAM-restore </run/saved-$p")
				on("CHECK", 1, checking(conf, first)).run(t).ok(t)
				on("CHECK", 2, checking(plain, second)).run(t).ok(t)
				for from, to := range map[*setup.Namespace][]string{c[1]: {"10.88.0.2", "fd88::2", "192.0.2.2"}, c[0]: {"10.88.0.3"}} {
					for _, to := range to {
						if !setuptest.Ping(t, from, to) {
							t.Errorf("no answer from %s", to)
						}
					}
				}
				if ask(t, outside, "tcp", "192.0.2.1", 8080) == "" {
					t.Error("the host port does not answer")
				}
				on("ADD", 3, plain).run(t).ok(t)
				for i := range 3 {
					on("DEL", i+1, plain).run(t).ok(t)
				}
				setuptest.Same(t, before, "DEL left traces")
			})
		})
	}
}

// TestWithoutIPTables checks ADD on hosts without the program iptables. ADD writes rules of
// iptables-nft by netlink, without the program. Rules of iptables-legacy are not needed here,
// because iptables-legacy drops no packets of containers.
func TestWithoutIPTables(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]string{
		"iptables-nft denies":            "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP",
		"iptables-nft denies nothing":    "iptables-nft -A FORWARD -s 192.0.2.9 -j DROP",
		"iptables-legacy denies nothing": "iptables-legacy -A FORWARD -s 192.0.2.9 -j DROP; ip6tables-legacy -A FORWARD -j LOG",
		"nothing":                        ":",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual)
			c := n.containers(2)
			setuptest.Run(t, "sh", "-ec", spoil)
			setuptest.Hide(t, "iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
			before := setuptest.Run(t, "nft", "list", "ruleset")
			on("STATUS", 0, dual).run(t).ok(t)
			n.must("add", c...)
			n.must("check", c...)
			for _, address := range []string{"10.88.0.2", "fd88::2"} {
				if !setuptest.Ping(t, c[1], address) {
					t.Errorf("no answer from %s", address)
				}
			}
			n.must("del", c...)
			if after := setuptest.Run(t, "nft", "list", "ruleset"); after != before {
				t.Errorf("DEL left rules:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestNeedsIPTables checks that ADD fails if iptables-legacy drops packets and the program
// iptables-legacy is not installed, because only this program can add rules there. The program
// iptables-nft does not help.
func TestNeedsIPTables(t *testing.T) {
	t.Parallel()
	for name, hidden := range map[string][]string{
		"no iptables": {"iptables", "iptables-nft", "iptables-legacy"}, "iptables-nft alone": {"iptables-legacy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "legacy")
			n.containers(1)
			setuptest.Hide(t, hidden...)
			before := setuptest.Run(t, "nft", "list", "ruleset")
			for verb, code := range map[string]uint{"ADD": 102, "STATUS": 50} {
				f := on(verb, 1, single).run(t).failed(t)
				for _, want := range []string{"iptables-legacy filter FORWARD", "policy DROP", "iptables-legacy: no such program", "install iptables", "forward"} {
					if f.Code != code || !strings.Contains(f.Msg, want) {
						t.Errorf("%s: got %+v, want code %d and %q", verb, f, code, want)
					}
				}
			}
			if left := setuptest.Run(t, "ip", "-o", "link"); strings.Contains(left, "veth") || strings.Contains(left, "br0") {
				t.Errorf("links are left: %s", left)
			}
			if after := setuptest.Run(t, "nft", "list", "ruleset"); after != before {
				t.Errorf("rules are left:\n%s", after)
			}
		})
	}
}
