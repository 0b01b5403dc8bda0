// Package xtables reads the rules of iptables in its two flavours, iptables-nft and iptables-legacy, and translates
// rules to the forms that iptables reads. The package must not decide which rules exist. Package forward decides
// this, and writes the rules.
//
// Start with Rule in rule.go. The file nft.go has the form of iptables-nft, and legacy.go that of iptables-legacy.
package xtables
