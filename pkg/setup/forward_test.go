package setup_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// rules returns the rules of a chain as the program prints them with -S, without "-A CHAIN".
func rules(t testing.TB, program, chain string) (list []string) {
	t.Helper()
	for line := range strings.Lines(setuptest.Run(t, program, "-S", chain)) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A "+chain+" "); ok {
			list = append(list, rule)
		}
	}
	return list
}

// TestForwardPlacement checks where EnsureForward adds the jump to BRIDGEVETH-FORWARD among the
// rules of other programs in FORWARD, with iptables-nft and iptables-legacy.
func TestForwardPlacement(t *testing.T) {
	t.Parallel()
	const jump = "-j BRIDGEVETH-FORWARD"
	for _, flavour := range []string{"nft", "legacy"} {
		for _, tt := range []struct {
			name    string
			chains  []string
			forward []string
			want    []string
		}{
			{name: "empty", want: []string{jump}},
			{
				name:    "Docker 20 to 27",
				chains:  []string{"DOCKER-USER", "DOCKER-ISOLATION-STAGE-1"},
				forward: []string{"-j DOCKER-USER", "-j DOCKER-ISOLATION-STAGE-1", "-o docker0 -j ACCEPT"},
				want:    []string{"-j DOCKER-USER", "-j DOCKER-ISOLATION-STAGE-1", jump, "-o docker0 -j ACCEPT"},
			},
			{
				name:    "Docker 28",
				chains:  []string{"DOCKER-USER", "DOCKER-FORWARD"},
				forward: []string{"-j DOCKER-USER", "-j DOCKER-FORWARD"},
				want:    []string{"-j DOCKER-USER", "-j DOCKER-FORWARD", jump},
			},
			{
				name:    "a trailing REJECT, as with ufw",
				forward: []string{"-j REJECT --reject-with icmp-port-unreachable"},
				want:    []string{jump, "-j REJECT --reject-with icmp-port-unreachable"},
			},
			{
				name:    "our jump above Docker's",
				chains:  []string{"DOCKER-USER", "BRIDGEVETH-FORWARD"},
				forward: []string{jump, "-j DOCKER-USER"},
				want:    []string{"-j DOCKER-USER", jump},
			},
			{
				name:    "our jump twice",
				chains:  []string{"BRIDGEVETH-FORWARD"},
				forward: []string{jump, "-s 192.0.2.0/24 -j ACCEPT", jump},
				want:    []string{jump, "-s 192.0.2.0/24 -j ACCEPT"},
			},
			{
				name: "matches of many kinds",
				forward: []string{
					"-s 192.0.2.0/24 -i eth+ -p tcp -m tcp --dport 80 -m comment --comment \"a web server\" -j ACCEPT",
					"-m mark --mark 0x1 -m limit --limit 1/sec -j ACCEPT", "-m conntrack --ctstate INVALID -j DROP",
				},
				want: []string{
					jump,
					"-s 192.0.2.0/24 -i eth+ -p tcp -m tcp --dport 80 -m comment --comment \"a web server\" -j ACCEPT",
					"-m mark --mark 0x1 -m limit --limit 1/sec -j ACCEPT", "-m conntrack --ctstate INVALID -j DROP",
				},
			},
		} {
			t.Run(flavour+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				host := setuptest.EnterHost(t)
				program := "iptables-" + flavour
				setuptest.DropForward(t, program)
				for _, chain := range tt.chains {
					setuptest.Run(t, program, "-N", chain)
				}
				for _, rule := range tt.forward {
					setuptest.Run(t, "sh", "-c", program+" -A FORWARD "+rule)
				}
				for range 2 { // the second call changes nothing
					if err := host.EnsureForward("br0", unix.AF_INET); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(tt.want, rules(t, program, "FORWARD")); diff != "" {
						t.Fatalf("FORWARD (-want +got):\n%s", diff)
					}
					if got := rules(t, program, "BRIDGEVETH-FORWARD"); len(got) != 3 || got[0] != "-j BRIDGEVETH-ADMIN" {
						t.Fatalf("our chain holds %q, want the administrator's and 2 rules", got)
					}
				}
				if err := host.DeleteForward("br0"); err != nil {
					t.Fatal(err)
				}
				left := slices.DeleteFunc(slices.Clone(tt.forward), func(r string) bool { return r == jump })
				if diff := cmp.Diff(left, rules(t, program, "FORWARD")); diff != "" {
					t.Errorf("FORWARD after DeleteForward (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestForwardRestored changes the rules, as another program may do, so that a ping between two
// containers fails. The next AttachPort must restore our rules, so that the ping passes.
func TestForwardRestored(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, wipe string }{
		{"flushed FORWARD", "iptables -F FORWARD"},
		{"flushed chain", "iptables -F BRIDGEVETH-FORWARD"},
		{"administrator's jump gone", "iptables -D BRIDGEVETH-FORWARD -j BRIDGEVETH-ADMIN; iptables -P FORWARD DROP; iptables -F FORWARD"},
		{"half a chain", "iptables -D BRIDGEVETH-FORWARD -i br0 -j ACCEPT; iptables -D BRIDGEVETH-FORWARD -o br0 -j ACCEPT"},
		{"flushed ruleset", "nft flush ruleset; iptables -P FORWARD DROP"},
		{"another DROP in legacy", "iptables-legacy -P FORWARD DROP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			a := attach(t, host, port(t, 1, setup.ForwardIPTables))
			b := attach(t, host, port(t, 2, setup.ForwardIPTables))
			setuptest.Run(t, "sh", "-c", tt.wipe)
			if setuptest.Ping(t, a.Container, "10.88.0.3") {
				t.Fatal("the ping passes although the rules are gone")
			}
			if err := host.VerifyPort(b); err == nil {
				t.Error("VerifyPort reports no difference")
			}
			attach(t, host, port(t, 3, setup.ForwardIPTables))
			if !setuptest.Ping(t, a.Container, "10.88.0.3") {
				t.Error("the next AttachPort has not restored the rules")
			}
			if err := host.VerifyPort(b); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForwardMovedUp adds a rule that denies all packets of our bridge, as another program may do.
// VerifyPort must report the fault. If the denying rule is in FORWARD, the next AttachPort must move
// our jump before the denying rule. If the denying rule is in BRIDGEVETH-FORWARD, AttachPort must
// move our rules before the denying rule.
//
// Our jump must stay behind the jump to DOCKER-USER. The order of other programs' rules must not
// change. A rule with a match may come before our jump.
func TestForwardMovedUp(t *testing.T) {
	t.Parallel()
	for _, flavour := range []string{"nft", "legacy"} {
		for _, tt := range []struct{ name, do string }{
			{"REJECT at the top", "$I -I FORWARD -j REJECT"},
			{"DROP with a comment", "$I -I FORWARD -m comment --comment closed -j DROP"},
			{"our jump behind a REJECT", "$I -D FORWARD -j BRIDGEVETH-FORWARD; $I -A FORWARD -j REJECT; $I -A FORWARD -j BRIDGEVETH-FORWARD"},
			{"REJECT between Docker's chain and our jump", "$I -N DOCKER-USER; $I -A DOCKER-USER -s 192.0.2.0/24 -j DROP; $I -I FORWARD -j REJECT; $I -I FORWARD -j DOCKER-USER"},
			{"DROP at the top of our chain", "$I -I BRIDGEVETH-FORWARD -j DROP"},
			{"DROP behind the administrator's in our chain", "$I -I BRIDGEVETH-FORWARD 2 -j DROP"},
			{"DROP of our bridge in our chain", "$I -I BRIDGEVETH-FORWARD 2 -i br0 -j DROP"},
			{"return in our chain", "$I -I BRIDGEVETH-FORWARD 2 -j RETURN"},
		} {
			t.Run(flavour+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				host := setuptest.EnterHost(t)
				dropAll(t, flavour)
				a := attach(t, host, port(t, 1, setup.ForwardIPTables))
				b := attach(t, host, port(t, 2, setup.ForwardIPTables))
				setuptest.Run(t, "sh", "-ec", "I=iptables-"+flavour+"; "+tt.do)
				if setuptest.Ping(t, a.Container, "10.88.0.3") {
					t.Fatal("the ping passes although the rule denies it")
				}
				if err := host.VerifyPort(b); err == nil {
					t.Error("VerifyPort reports no difference")
				}
				theirs := othersRules(t, "iptables-"+flavour)
				attach(t, host, port(t, 3, setup.ForwardIPTables))
				if !setuptest.Ping(t, a.Container, "10.88.0.3") {
					t.Errorf("the next AttachPort has not moved our rules before the denying rule: %q, %q", rules(t, "iptables-"+flavour, "FORWARD"), rules(t, "iptables-"+flavour, "BRIDGEVETH-FORWARD"))
				}
				if err := host.VerifyPort(b); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(theirs, othersRules(t, "iptables-"+flavour)); diff != "" {
					t.Errorf("others' rules have changed (-before +after):\n%s", diff)
				}
				in := rules(t, "iptables-"+flavour, "FORWARD")
				if user := slices.Index(in, "-j DOCKER-USER"); user > slices.Index(in, "-j BRIDGEVETH-FORWARD") {
					t.Errorf("our jump is before the administrator's: %q", in)
				}
				setuptest.Run(t, "iptables-"+flavour, "-I", "FORWARD", "-i", "br0", "-j", "DROP")
				if err := host.VerifyPort(b); err != nil {
					t.Errorf("a rule with a match must keep its place: %v", err)
				}
			})
		}
	}
}

// othersRules returns the rules of other programs in FORWARD and in BRIDGEVETH-FORWARD.
func othersRules(t testing.TB, program string) (list []string) {
	t.Helper()
	for _, chain := range []string{"FORWARD", "BRIDGEVETH-FORWARD"} {
		for _, r := range rules(t, program, chain) {
			if !strings.Contains(r, "BRIDGEVETH") && !strings.HasSuffix(r, "-j ACCEPT") {
				list = append(list, r)
			}
		}
	}
	return list
}

// TestForwardDenied adds a rule that denies all packets before the jump to DOCKER-USER, or to the
// chain of the reference plugin firewall. CheckDenied must return an error that names this chain and
// the administrator's chain. AttachPort must still add our jump behind that jump.
func TestForwardDenied(t *testing.T) {
	t.Parallel()
	for chain, remedy := range map[string]string{
		"DOCKER-USER": "below this jump, or into DOCKER-USER",
		"CNI-FORWARD": "below this jump, or into CNI-ADMIN",
	} {
		t.Run(chain, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			setuptest.Run(t, "sh", "-ec", "iptables -N "+chain+"; iptables -A FORWARD -j "+chain)
			if err := host.CheckDenied(&setup.Network{IPv4: true}); err != nil {
				t.Fatal(err)
			}
			setuptest.Run(t, "iptables", "-I", "FORWARD", "-j", "REJECT")
			if err := host.CheckDenied(&setup.Network{IPv4: true}); !errors.Is(err, setup.ErrDenied) || !strings.Contains(err.Error(), "the jump to "+chain) || !strings.HasSuffix(err.Error(), remedy) {
				t.Errorf("got %v", err)
			}
			attach(t, host, port(t, 1, setup.ForwardIPTables))
			if got, want := rules(t, "iptables", "FORWARD"), []string{"-j REJECT --reject-with icmp-port-unreachable", "-j " + chain, "-j BRIDGEVETH-FORWARD"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestForwardChainMovedUp checks that AttachPort moves our rules in a chain of the administrator
// directly before a rule that denies all packets. Rules with a match must stay before our rules.
func TestForwardChainMovedUp(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.Run(t, "sh", "-ec", "nft add table inet mine; nft add chain inet mine fw '{ type filter hook forward priority 0; policy drop; }'")
	chained := func(i int) *setup.Port {
		p := port(t, i, setup.ForwardNone)
		p.Network.ForwardChains = []setup.Chain{{Family: "inet", Table: "mine", Name: "fw"}}
		return attach(t, host, p)
	}
	a, b := chained(1), chained(2)
	setuptest.Run(t, "sh", "-ec", "nft insert rule inet mine fw counter drop; nft insert rule inet mine fw ip saddr 192.0.2.9 drop")
	if setuptest.Ping(t, a.Container, "10.88.0.3") {
		t.Fatal("the ping passes although the rule denies it")
	}
	if err := host.VerifyPort(b); err == nil {
		t.Error("VerifyPort reports no difference")
	}
	chained(3)
	if !setuptest.Ping(t, a.Container, "10.88.0.3") {
		t.Error("the next AttachPort has not moved our rules before the denying rule")
	}
	if err := host.VerifyPort(b); err != nil {
		t.Error(err)
	}
	got := setuptest.Run(t, "nft", "-s", "list", "chain", "inet", "mine", "fw")
	at := func(text string) int { return strings.Index(got, text) }
	if at("192.0.2.9") > at("br0 incoming") || at("br0 incoming") > at("counter drop") || strings.Count(got, "br0 ") != 2 {
		t.Errorf("our rules are not between the two rules of the administrator:\n%s", got)
	}
}

// TestForwardHonoursAdministrator checks that an administrator's DROP rule in DOCKER-USER or
// BRIDGEVETH-ADMIN drops packets at once. The rule must still drop them after all ports were
// detached and attached again.
func TestForwardHonoursAdministrator(t *testing.T) {
	t.Parallel()
	for _, flavour := range []string{"nft", "legacy"} {
		for _, chain := range []string{"DOCKER-USER", "BRIDGEVETH-ADMIN"} {
			t.Run(flavour+"/"+chain, func(t *testing.T) {
				t.Parallel()
				host := setuptest.EnterHost(t)
				program := "iptables-" + flavour
				dropAll(t, flavour)
				if chain == "DOCKER-USER" {
					setuptest.Run(t, program, "-N", chain)
					setuptest.Run(t, program, "-A", "FORWARD", "-j", chain)
				}
				a := attach(t, host, port(t, 1, setup.ForwardIPTables))
				b := attach(t, host, port(t, 2, setup.ForwardIPTables))
				if !setuptest.Ping(t, a.Container, "10.88.0.3") {
					t.Fatal("the ping is dropped")
				}
				setuptest.Run(t, program, "-A", chain, "-d", "10.88.0.3", "-j", "DROP")
				dropped := func(when string) {
					t.Helper()
					if setuptest.Ping(t, a.Container, "10.88.0.3") {
						t.Errorf("%s the administrator's DROP is bypassed", when)
					}
				}
				dropped("at once")
				for _, p := range []*setup.Port{a, b} {
					if err := host.DetachPort(p.Attachment, "br0"); err != nil {
						t.Fatal(err)
					}
				}
				attach(t, host, a)
				attach(t, host, b)
				dropped("on the next network")
				if chain != "BRIDGEVETH-ADMIN" {
					return
				}
				// DeleteForward must keep an empty BRIDGEVETH-ADMIN if a rule of the administrator
				// jumps to it.
				setuptest.Run(t, program, "-F", chain)
				setuptest.Run(t, program, "-A", "INPUT", "-j", chain)
				if err := host.DeleteForward("br0"); err != nil {
					t.Error(err)
				}
				setuptest.Run(t, program, "-S", chain)
			})
		}
	}
}

// TestForwardOfOlderVersion makes the rules that older versions of bridgeveth added for a bridge. The
// rules must count as complete, and DeleteForward must delete all of them.
func TestForwardOfOlderVersion(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			setuptest.DropForward(t, program)
			before := setuptest.Run(t, program, "-S")
			setuptest.Run(t, "sh", "-ec", strings.ReplaceAll(`
				$I -N BRIDGEVETH-ADMIN; $I -N BRIDGEVETH-FORWARD; $I -A FORWARD -j BRIDGEVETH-FORWARD
				$I -A BRIDGEVETH-FORWARD -j BRIDGEVETH-ADMIN
				$I -A BRIDGEVETH-FORWARD -i br0 -o br0 -j ACCEPT
				$I -A BRIDGEVETH-FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
				$I -A BRIDGEVETH-FORWARD -i br0 -j ACCEPT
				$I -A BRIDGEVETH-FORWARD -o br0 -j ACCEPT`, "$I", program))
			older := setuptest.Run(t, program, "-S")
			if err := host.EnsureForward("br0", unix.AF_INET); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(older, setuptest.Run(t, program, "-S")); diff != "" {
				t.Errorf("EnsureForward changed complete rules (-want +got):\n%s", diff)
			}
			if err := host.DeleteForward("br0"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, setuptest.Run(t, program, "-S")); diff != "" {
				t.Errorf("after DeleteForward (-want +got):\n%s", diff)
			}
		})
	}
}

// TestForwardTwoBridges checks that the rules of two bridges in BRIDGEVETH-FORWARD are added and
// deleted independently, and that this chain is deleted with the rules of the last bridge.
func TestForwardTwoBridges(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.DropForward(t, "iptables")
	before := setuptest.Dump(t)
	for _, bridge := range []string{"br0", "br01"} { // br01 must not match as br0
		if err := host.EnsureForward(bridge, unix.AF_INET); err != nil {
			t.Fatal(err)
		}
	}
	if got := rules(t, "iptables", "BRIDGEVETH-FORWARD"); len(got) != 5 {
		t.Fatalf("got %q, want the administrator's and 4 rules", got)
	}
	if err := host.DeleteForward("br0"); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t, "iptables", "BRIDGEVETH-FORWARD") {
		if !strings.Contains(r, " br01 ") && r != "-j BRIDGEVETH-ADMIN" {
			t.Errorf("left behind: %s", r)
		}
	}
	if err := host.DeleteForward("br01"); err != nil {
		t.Fatal(err)
	}
	setuptest.Same(t, before, "DeleteForward left traces")
}
