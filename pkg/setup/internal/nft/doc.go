// Package nft reads and changes nf_tables by netlink.
//
// It reads chains and rules by dumps of its own, encodes the expressions that match packets, sends
// transactions, and waits for changes of rules.
//
// The package must not know which rules are wanted, nor any network. The packages ownrules and forward
// know that.
//
// Start with the matches in match.go, of which every rule is made. Then read change.go, which writes a
// transaction, and EachRule in nft.go, which reads a chain.
package nft
