package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Chain names an nf_tables chain of another program.
type Chain struct {
	Family      string // ip, ip6 or inet
	Table, Name string
}

// ParseChain parses a chain as nft(8) writes it: FAMILY TABLE CHAIN.
func ParseChain(text string) (Chain, error) {
	words := strings.Fields(text)
	if len(words) != 3 || !slices.Contains([]string{"ip", "ip6", "inet"}, words[0]) {
		return Chain{}, fmt.Errorf("%q is not a chain; write a chain as \"inet filter forward\": family (ip, ip6 or inet), table, chain", text)
	}
	return Chain{words[0], words[1], words[2]}, nil
}

// String returns the chain as nft(8) writes it. It is the inverse of ParseChain.
func (c Chain) String() string { return strings.Join([]string{c.Family, c.Table, c.Name}, " ") }
