package doctor

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// verdict is what a chain of nf_tables has said of our packet.
type verdict struct {
	family       uint8 // NFPROTO_*
	table, chain string
	handle       uint64 // of the rule; 0 is the policy
	dropped      bool
	in           int // the index of the link that the packet came in by; 0 if it did not
}

// Verdicts of linux/netfilter.h.
const nfDrop, nfAccept = 0, 1

func cString(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// families are those of nf_tables, as nft(8) has them.
var families = map[uint8]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// place is the chain as a command for nft(8) names it.
func (v verdict) place() string {
	return command("%s %s %s", families[v.family], v.table, v.chain)
}

// where is the chain in words.
func (v verdict) where() string {
	return fmt.Sprintf("chain %s of table %s %s", v.chain, families[v.family], v.table)
}

// text is the rule, or the policy, in the words of nft(8), as far as that is installed. It has
// no counters, so that the same rule reads the same on every way. nft(8) reads its arguments as
// one text, in which a container's names might be commands: only plain names are asked for.
func (v verdict) text(ns *setup.Namespace) string {
	if v.handle == 0 {
		return "policy drop"
	}
	out := ""
	if !plain.MatchString(v.table) || !plain.MatchString(v.chain) {
		return fmt.Sprintf("rule with handle %d", v.handle)
	}
	_ = ns.Do(func() error { // without it the handle has to do
		nft, err := setup.ProgramPath("nft")
		if err != nil {
			return err
		}
		b, err := exec.Command(nft, "-s", "-a", "list", "chain", families[v.family], v.table, v.chain).Output()
		out = string(b)
		return err
	})
	rule := regexp.MustCompile(fmt.Sprintf(`(?m)^\s*(.*?) # handle %d$`, v.handle)).FindStringSubmatch(out)
	if rule == nil {
		return fmt.Sprintf("rule with handle %d", v.handle)
	}
	return fmt.Sprintf("%s # handle %d", rule[1], v.handle)
}
