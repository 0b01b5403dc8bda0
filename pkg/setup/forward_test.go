package setup_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// rules lists the rules of a chain, without "-A CHAIN".
func rules(t testing.TB, program, chain string) (list []string) {
	t.Helper()
	for line := range strings.Lines(setuptest.Run(t, program, "-S", chain)) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A "+chain+" "); ok {
			list = append(list, rule)
		}
	}
	return list
}

// TestForwardPlacement puts others' rules into FORWARD and looks where our jump
// comes to stand, in both flavours.
func TestForwardPlacement(t *testing.T) {
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
				for range 2 { // the second time there is nothing left to do
					if err := host.EnsureForward("br0", unix.AF_INET); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(tt.want, rules(t, program, "FORWARD")); diff != "" {
						t.Fatalf("FORWARD (-want +got):\n%s", diff)
					}
					if got := rules(t, program, "BRIDGEVETH-FORWARD"); len(got) != 5 || got[0] != "-j BRIDGEVETH-ADMIN" {
						t.Fatalf("our chain holds %q, want the administrator's and 4 rules", got)
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

// TestForwardHeals wipes rules as others do, sees the ping fail, and that the next
// EnsureForward mends it.
func TestForwardHeals(t *testing.T) {
	for _, tt := range []struct{ name, wipe string }{
		{"flushed FORWARD", "iptables -F FORWARD"},
		{"flushed chain", "iptables -F BRIDGEVETH-FORWARD"},
		{"administrator's jump gone", "iptables -D BRIDGEVETH-FORWARD -j BRIDGEVETH-ADMIN; iptables -P FORWARD DROP; iptables -F FORWARD"},
		{"half a chain", "iptables -D BRIDGEVETH-FORWARD 2; iptables -D BRIDGEVETH-FORWARD -i br0 -j ACCEPT; iptables -D BRIDGEVETH-FORWARD -o br0 -j ACCEPT"},
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
				t.Error("VerifyPort finds nothing wrong")
			}
			attach(t, host, port(t, 3, setup.ForwardIPTables))
			if !setuptest.Ping(t, a.Container, "10.88.0.3") {
				t.Error("the next AttachPort has not mended it")
			}
			if err := host.VerifyPort(b); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForwardHonoursAdministrator shows that what the administrator drops stays dropped, in
// Docker's chain for him and in ours, and that what he has written there stays.
func TestForwardHonoursAdministrator(t *testing.T) {
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
				// Nor does it go while he leads packets to it himself.
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

// TestForwardTwoBridges shows that bridges share the chain, and that it goes with
// the last.
func TestForwardTwoBridges(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.DropForward(t, "iptables")
	before := setuptest.Dump(t)
	for _, bridge := range []string{"br0", "br01"} { // the one's name begins the other's
		if err := host.EnsureForward(bridge, unix.AF_INET); err != nil {
			t.Fatal(err)
		}
	}
	if got := rules(t, "iptables", "BRIDGEVETH-FORWARD"); len(got) != 9 {
		t.Fatalf("got %q, want the administrator's and 8 rules", got)
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
	setuptest.Same(t, before, "something is left")
}
