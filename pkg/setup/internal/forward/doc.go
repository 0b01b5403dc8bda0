// Package forward makes foreign FORWARD chains accept a bridge's packets. There is one file for each kind
// of firewall: iptables-nft, iptables-legacy, nf_tables chains of somebody else, and firewalld.
// order.go knows the order that Docker's chains need.
//
// The package changes foreign chains only by a jump, or by rules that name the bridge. It must not
// know our own tables, which are in package ownrules.
//
// Start with MissingIPTables in iptables.go, which compares FORWARD with what a bridge needs. Then read
// Chains in hook.go, which lists the chains that a forwarded packet traverses.
package forward
