package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Change is a transaction on one table. Its methods append requests to the transaction, and Send
// sends them. The library's type nftables.Conn is not sufficient: it cannot write the user data of
// a set, cannot send a transaction for a given generation of nf_tables (see Generation), and opens
// its own socket.
type Change struct {
	table *nftables.Table
	batch netns.Batch
	err   error // the first expression that could not be encoded
}

// NewChange returns an empty transaction on a table.
func NewChange(t *nftables.Table) *Change { return &Change{table: t} }

// Set describes a set, or a map if Value is given.
type Set struct {
	Name     string
	Key      nftables.SetDatatype
	Value    nftables.SetDatatype // the zero value for a set
	UserData []byte               // tells nft(8) how to print and parse the keys
}

// Send sends the transaction. The kernel processes all requests or none. The parameter seen is the
// generation of nf_tables (see Generation) at which the caller has read the rules. If nf_tables has
// changed since then, the kernel processes no request and the error is ERESTART. With
// AnyGeneration, the kernel does not check the generation.
func (c *Change) Send(n *netns.Namespace, seen uint32) error {
	if c.err != nil {
		return c.err
	}
	return Transact(n, c.batch, seen)
}

// add appends a request about an object of the table. The parameter "what" is the name of the
// object in errors.
func (c *Change) add(what string, message, flags int, attributes ...*nl.RtAttr) {
	const name = unix.NFTA_TABLE_NAME // NFTA_CHAIN_TABLE, NFTA_SET_TABLE and NFTA_RULE_TABLE have the same number
	named := append([]*nl.RtAttr{nl.NewRtAttr(name, nl.ZeroTerminated(c.table.Name))}, attributes...)
	c.batch.Add(what, Request(message, flags, uint8(c.table.Family), named...))
}

// AddTable adds the table unless it exists.
func (c *Change) AddTable() {
	c.add("add table "+c.table.Name, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
}

// DeleteTable deletes the table and everything in it.
func (c *Change) DeleteTable() {
	c.add("delete table "+c.table.Name, unix.NFT_MSG_DELTABLE, 0)
}

// AddChain adds a chain unless it exists. Packets reach a chain without a hook only by jumps.
func (c *Change) AddChain(chain *nftables.Chain) {
	attributes := []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain.Name))}
	if chain.Hooknum != nil {
		hook := nl.NewRtAttr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, nil)
		hook.AddRtAttr(unix.NFTA_HOOK_HOOKNUM, number(uint32(*chain.Hooknum)))
		hook.AddRtAttr(unix.NFTA_HOOK_PRIORITY, number(uint32(*chain.Priority)))
		attributes = append(attributes, hook, nl.NewRtAttr(unix.NFTA_CHAIN_TYPE, nl.ZeroTerminated(string(chain.Type))))
	}
	c.add("add chain "+chain.Name, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, attributes...)
}

// DeleteChain deletes a chain, which must be empty.
func (c *Change) DeleteChain(name string) {
	c.add("delete chain "+name, unix.NFT_MSG_DELCHAIN, 0, nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(name)))
}

// FlushChain deletes the rules of a chain.
func (c *Change) FlushChain(name string) {
	c.add("flush chain "+name, unix.NFT_MSG_DELRULE, 0, nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(name)))
}

// AddSet adds a set or a map unless it exists. If it exists with other flags, the kernel returns an
// error (nft_set_is_same in net/netfilter/nf_tables_api.c). AddSet sets the same flags as nft(8),
// and therefore not NFT_SET_CONCAT. Otherwise nft(8) could not load a saved ruleset while the set
// exists.
func (c *Change) AddSet(s Set) {
	flags := uint32(0)
	attributes := []*nl.RtAttr{
		nl.NewRtAttr(unix.NFTA_SET_NAME, nl.ZeroTerminated(s.Name)),
		nl.NewRtAttr(unix.NFTA_SET_ID, number(uint32(len(c.batch)+1))), // a number that no other set in the transaction has
		nl.NewRtAttr(unix.NFTA_SET_KEY_TYPE, number(s.Key.GetNFTMagic())),
		nl.NewRtAttr(unix.NFTA_SET_KEY_LEN, number(s.Key.Bytes)),
	}
	if s.Value.Name != "" {
		flags = unix.NFT_SET_MAP
		kind := s.Value.GetNFTMagic()
		if s.Value == nftables.TypeVerdict {
			kind = unix.NFT_DATA_VERDICT
		}
		attributes = append(attributes, nl.NewRtAttr(unix.NFTA_SET_DATA_TYPE, number(kind)), nl.NewRtAttr(unix.NFTA_SET_DATA_LEN, number(s.Value.Bytes)))
	}
	attributes = append(attributes, nl.NewRtAttr(unix.NFTA_SET_FLAGS, number(flags)))
	if s.UserData != nil {
		attributes = append(attributes, nl.NewRtAttr(unix.NFTA_SET_USERDATA, s.UserData))
	}
	c.add("add set "+s.Name, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, attributes...)
}

// Append adds further requests to the transaction, such as requests about the elements of a set.
func (c *Change) Append(b netns.Batch) { c.batch = append(c.batch, b...) }

// Rule is a rule to add. By default it becomes the last rule of its chain.
type Rule struct {
	Chain   string
	Comment string
	Exprs   []expr.Any
	First   bool   // the rule becomes the first rule of its chain
	At      uint64 // handle of an existing rule: the new rule goes directly after this rule, or directly before it if First is true
}

// AddRule adds a rule.
func (c *Change) AddRule(r Rule) {
	list := nl.NewRtAttr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, nil)
	for _, e := range r.Exprs {
		encoded, err := expr.Marshal(byte(c.table.Family), e)
		if err != nil && c.err == nil {
			c.err = fmt.Errorf("rule %q of chain %s: %w", r.Comment, r.Chain, err)
		}
		list.AddRtAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, encoded)
	}
	flags := unix.NLM_F_CREATE
	if !r.First {
		flags |= unix.NLM_F_APPEND
	}
	rule := []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(r.Chain)), list}
	if r.Comment != "" {
		rule = append(rule, nl.NewRtAttr(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.Comment)))
	}
	if r.At != 0 {
		rule = append(rule, nl.NewRtAttr(unix.NFTA_RULE_POSITION, binary.BigEndian.AppendUint64(nil, r.At)))
	}
	if protocol := matchedProtocol(r.Exprs); protocol != 0 {
		compat := nl.NewRtAttr(unix.NFTA_RULE_COMPAT|unix.NLA_F_NESTED, nil)
		compat.AddRtAttr(unix.NFTA_RULE_COMPAT_PROTO, number(protocol))
		compat.AddRtAttr(unix.NFTA_RULE_COMPAT_FLAGS, number(0))
		rule = append(rule, compat)
	}
	c.add("add rule to chain "+r.Chain, unix.NFT_MSG_NEWRULE, flags, rule...)
}

// matchedProtocol looks in exprs for the iptables match "tcp" or "udp", and returns its protocol
// number (IPPROTO_*). Without such a match, it returns 0. The request for the rule must contain
// this number. Otherwise the kernel refuses further iptables matches of the rule, such as
// multiport.
func matchedProtocol(exprs []expr.Any) uint32 {
	for _, e := range exprs {
		match, is := e.(*expr.Match)
		switch {
		case is && match.Name == "tcp":
			return unix.IPPROTO_TCP
		case is && match.Name == "udp":
			return unix.IPPROTO_UDP
		}
	}
	return 0
}

// DeleteRules deletes the rules with these handles from a chain.
func (c *Change) DeleteRules(chain string, handles []uint64) {
	for _, handle := range handles {
		c.add("delete rule of chain "+chain, unix.NFT_MSG_DELRULE, 0, nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)),
			nl.NewRtAttr(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle)))
	}
}

// number encodes a 32-bit attribute of nf_tables, which is in network byte order.
func number(value uint32) []byte { return binary.BigEndian.AppendUint32(nil, value) }

// Modify calls fill, which reads rules from nf_tables and fills a transaction on a table, and sends
// the transaction. If nf_tables changes between reading and sending, Modify calls fill again with a
// new transaction. Without this, the transaction would fail when another program has deleted one of
// the rules, for instance by "nft flush ruleset".
func Modify(n *netns.Namespace, t *nftables.Table, fill func(*Change) error) error {
	return AtOneGeneration(n, func(seen uint32) error {
		c := NewChange(t)
		if err := fill(c); err != nil {
			return err
		}
		return c.Send(n, seen)
	})
}

// AtOneGeneration calls f with the present generation of nf_tables. f reads from nf_tables and
// sends a transaction for this generation. If nf_tables changes between reading and sending, f
// returns ERESTART, and AtOneGeneration calls f again with the new generation.
func AtOneGeneration(n *netns.Namespace, f func(seen uint32) error) error {
	return netns.Repeat(func() error {
		seen, err := Generation(n)
		if err == nil {
			err = f(seen)
		}
		return err
	})
}
