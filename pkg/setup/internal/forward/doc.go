// Package forward makes foreign FORWARD chains accept a bridge's packets. There is one file for each kind
// of firewall:
//
//   - iptables.go compares FORWARD with the rules that a bridge needs (iptables_rules.go). The files
//     iptables_nft.go and iptables_legacy.go read FORWARD, the files with "write" in their names change it.
//   - docker.go has Docker's chains, and the order in which FORWARD must jump to them and to our chain.
//   - nftables.go adds rules to the nf_tables chains that the network's configuration names.
//   - firewalld.go asks firewalld to accept the bridge's packets.
//   - transit.go adds rules to iptables for packets that pass through the host and no bridge.
//
// base_chains.go lists the chains that a forwarded packet traverses. denied.go finds a chain that drops the
// packets and that only its owner can change.
//
// The package changes a foreign chain only by a jump, or by rules that name the bridge. It must not use our
// own tables, which are in package ownrules.
//
// Start with MissingIPTables in iptables.go.
package forward
