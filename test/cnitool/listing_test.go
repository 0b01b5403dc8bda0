package cnitool

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// listing matches a block in docs/forward.md that lists rules. The HTML comment before the block
// names a situation, and says which rules of this situation the block lists.
var listing = regexp.MustCompile("(<!-- (.*): (.*) -->\n```\n)((?s:.*?))(```\n)")

// TestListings checks that the rules in docs/forward.md are equal to the rules that ADD makes. With
// the flag -update, the test writes the rules to the page.
func TestListings(t *testing.T) {
	if version := setuptest.Run(t, "nft", "--version"); !strings.Contains(version, " v1.0.6 ") {
		t.Skip("LISTED SKIP: the page shows rules as nft 1.0.6 prints them, and this is " + version)
	}
	const page = "../../docs/forward.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	docker := func(rules string) string { return "ip link add docker0 type bridge; I=iptables-nft\n" + rules }
	situations := map[string]struct {
		rules string
		conf  object
	}{
		"policy DROP":     {rules: "iptables-nft -P FORWARD DROP"},
		"Docker 20 to 27": {rules: docker(docker27)},
		"Docker 28":       {rules: docker(docker28)},
		"chain":           {rules: unknown, conf: object{"forwardChains": []string{"inet filter forward"}}},
		"policies":        {conf: object{"inbound": "established", "ingressPolicy": "same-bridge", "forwardMark": "0x100000"}},
	}
	made := map[string]string{}
	for _, block := range listing.FindAllStringSubmatch(string(text), -1) {
		t.Run(block[2]+", "+block[3], func(t *testing.T) {
			s, known := situations[block[2]]
			if !known {
				t.Fatalf("no such situation: %q", block[2])
			}
			newNode(t, dual).containers(1)
			setuptest.Run(t, "sh", "-ec", s.rules)
			conf := publishing(dual.with(s.conf), object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"})
			on("ADD", 1, conf).run(t).ok(t)
			got := ""
			if block[3] == "iptables" {
				for _, chain := range []string{"FORWARD", "BRIDGEVETH-FORWARD"} {
					got += setuptest.Run(t, "iptables-nft", "-S", chain)
				}
			} else {
				got = setuptest.Run(t, "nft", append([]string{"-s", "list", "table"}, strings.Fields(block[3])...)...)
			}
			if block[2] == "policies" { // only the listing of the situation policies has the chain of this block
				got = chainOf(got, "forwarded") + chainOf(got, "marking")
			}
			made[block[1]] = got
			on("DEL", 1, conf).run(t).ok(t)
		})
	}
	golden(t, page, listing.ReplaceAllStringFunc(string(text), func(block string) string {
		parts := listing.FindStringSubmatch(block)
		return parts[1] + made[parts[1]] + parts[5]
	}))
}

// chainOf returns the part about one chain from the output of `nft list table`.
func chainOf(listed, chain string) string {
	_, rest, _ := strings.Cut(listed, "\tchain "+chain+" {\n")
	inside, _, _ := strings.Cut(rest, "\n\t}\n")
	return "\tchain " + chain + " {\n" + inside + "\n\t}\n"
}

// TestListedTables compares bridgeveth's tables, as nft prints them, with a file in testdata for each
// version of nft. The rules are the same for all versions, so a difference between two files is a
// change of nft's output. If the rules change, or nft has no file yet, run hack/userland.sh trixie sid,
// and this test with -update. Then look at the differences.
func TestListedTables(t *testing.T) {
	eachUserland(t, func(t *testing.T, u userland) {
		conf := publishing(dual.with(object{
			"inbound": "established", "ingressPolicy": "same-bridge", "forwardMark": "0x100000",
			"ipspoofchk": true, "masqExclude": []string{"192.0.2.128/25", "2001:db8::8000/113"},
		}), object{"hostPort": 8080, "containerPort": 80}, object{"hostPort": 8081, "containerPort": 81, "protocol": "udp", "hostIP": "127.0.0.1"})
		newNode(t, conf).containers(1)
		on("ADD", 1, conf).run(t).ok(t)
		version := regexp.MustCompile(`v([0-9.]+)`).FindStringSubmatch(u.run(t, "nft --version"))[1]
		golden(t, "testdata/nft-"+version+".golden", u.run(t, "for f in ip ip6 bridge; do nft -s list table $f bridgeveth; done"))
		on("DEL", 1, conf).run(t).ok(t)
	})
}
