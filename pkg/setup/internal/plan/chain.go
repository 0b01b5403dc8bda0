package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Chain is a chain of nf_tables, of somebody else's.
type Chain struct {
	Family      string // ip, ip6 or inet
	Table, Name string
}

// ParseChain reads a chain in the words of nft(8): FAMILY TABLE CHAIN.
func ParseChain(text string) (Chain, error) {
	words := strings.Fields(text)
	if len(words) != 3 || !slices.Contains([]string{"ip", "ip6", "inet"}, words[0]) {
		return Chain{}, fmt.Errorf("%q is no chain; write one as \"inet filter forward\": family (ip, ip6 or inet), table, chain", text)
	}
	return Chain{words[0], words[1], words[2]}, nil
}

// String is the chain as nft(8) writes it, and ParseChain reads it.
func (c Chain) String() string { return strings.Join([]string{c.Family, c.Table, c.Name}, " ") }
