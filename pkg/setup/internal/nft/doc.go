// Package nft reads and changes nf_tables by netlink.
//
// It reads chains and rules, encodes the expressions that match packets, sends transactions, and
// waits for changes of rules.
//
// The package must not decide which rules exist. The packages ownrules and forward decide this.
//
// Start with match.go, whose functions return the expressions of a rule. Then read change.go, which
// sends a transaction, and EachRule in nft.go, which reads a chain.
package nft
