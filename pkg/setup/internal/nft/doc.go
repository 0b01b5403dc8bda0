// Package nft speaks nf_tables: it reads chains and rules by dumps of its own, builds the
// expressions that match packets, sends transactions, and hears of changes.
//
// It knows the kernel's messages. It does not know which rules are wanted, nor any network.
//
// Start with match.go, whose functions are the words that rules are made of, then Transact
// (nft.go).
package nft
