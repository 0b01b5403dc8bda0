// Package forward makes foreign FORWARD chains accept a bridge's packets. There is one file for each kind
// of firewall:
//
//   - iptables.go compares FORWARD with the rules that a bridge needs (iptables_rules.go). The files
//     iptables_nft.go and iptables_legacy.go read FORWARD, the files with "write" in their names change it.
//   - docker.go has the chains of Docker, and the order of our rules and theirs.
//   - nftables.go adds rules to the nf_tables chains that the network's configuration names.
//   - firewalld.go asks firewalld.
//
// base_chains.go lists the chains that a forwarded packet traverses. denied.go finds a chain that drops the
// packets and that only its owner can change.
//
// The package changes foreign chains only by a jump, or by rules that name the bridge. It must not
// know our own tables, which are in package ownrules.
//
// Start with MissingIPTables in iptables.go.
package forward
