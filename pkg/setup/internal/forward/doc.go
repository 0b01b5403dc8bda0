// Package forward makes the FORWARD chains of other programs accept a bridge's packets. There is
// one file for each kind of firewall:
//
//   - iptables.go compares FORWARD with the rules that a bridge needs (iptables_rules.go). The files
//     with "write" in their names change FORWARD.
//   - docker.go has Docker's chains, and the order in which FORWARD must jump to them and to
//     BRIDGEVETH-FORWARD, our own chain.
//   - nftables.go adds rules to the nf_tables chains that the network's configuration names.
//   - firewalld.go asks firewalld to accept the bridge's packets.
//   - transit.go adds rules to iptables for packets that the host forwards, but not through a bridge of ours.
//
// base_chains.go lists the chains that a forwarded packet traverses. denied.go finds a chain that
// drops the packets and that only its owner can change.
//
// Package xtables has the form of the rules of iptables.
//
// In a chain of another program, the package adds only a jump, or rules that name the bridge. It
// must not use bridgeveth's own tables. Package ownrules reads and writes these tables.
//
// Start with MissingIPTables in iptables.go.
package forward
