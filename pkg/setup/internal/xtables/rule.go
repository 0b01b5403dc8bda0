package xtables

// The filter table and its chain for forwarded packets.
const (
	Filter  = "filter"
	Forward = "FORWARD"
)

// Verdicts, as the target of a Rule.
const (
	Accept = "ACCEPT"
	Drop   = "DROP"
	Reject = "REJECT"
)

// Bits of state_mask in xt_conntrack_mtinfo3, linux/netfilter/xt_conntrack.h.
const (
	StateEstablished = 1 << 1
	StateRelated     = 1 << 2
	StateDNAT        = 1 << 7

	StatesOpen = StateRelated | StateEstablished | StateDNAT
)

// Rule holds the parts of an iptables rule that bridgeveth uses.
type Rule struct {
	In, Out string // interfaces; "" matches every interface
	States  uint16 // conntrack states that match; 0 matches every state
	Target  string // a chain or a verdict
	Other   bool   // the rule has a match that the other fields cannot represent
	Native  bool   // the rule matches conntrack by an expression of nft(8), because nft(8) has loaded it from a saved ruleset
}

// Args returns the rule as arguments of iptables(8). States must be 0 or StatesOpen.
func (r Rule) Args() (args []string) {
	if r.In != "" {
		args = append(args, "-i", r.In)
	}
	if r.Out != "" {
		args = append(args, "-o", r.Out)
	}
	if r.States != 0 {
		args = append(args, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT")
	}
	return append(args, "-j", r.Target)
}

// Denies reports whether the rule denies all packets that reach it.
func (r Rule) Denies() bool { return r == Rule{Target: Drop} || r == Rule{Target: Reject} }
