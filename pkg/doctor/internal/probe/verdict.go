package probe

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Verdict is the decision of a rule or a policy of nf_tables about a packet.
type Verdict struct {
	Family       string // as nft(8) names it: "ip", "inet", "bridge"
	Table, Chain string
	Handle       uint64 // of the rule; 0 for the policy
	Dropped      bool

	in int // index of the link by which the packet came in; 0 if it came by no link
}

// families holds the names of the nf_tables families, as nft(8) prints them.
var families = map[uint8]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

func cString(b []byte) string { return strings.TrimRight(string(b), "\x00") }
