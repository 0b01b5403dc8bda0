// Package forward gets a bridge's packets past the FORWARD chains of others that deny them. There
// is one file for each kind of foreign firewall: iptables-nft, iptables-legacy, nf_tables chains
// of somebody else, firewalld, and the order that Docker's chains ask for.
//
// It changes chains of others only by a jump, or by rules that name the bridge. Rules of our own
// tables are in the package ownrules.
//
// Start with Chains (hook.go), which lists what a forwarded packet passes, then MissingIPTables.
package forward
