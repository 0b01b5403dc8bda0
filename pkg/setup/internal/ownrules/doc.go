// Package ownrules maintains our own tables of nf_tables. There is one file for each topic: masquerade.go,
// hostport.go, guard.go (spoofed addresses), policy.go (ingress policy, marks), and localnet.go (host ports
// on the host's loopback).
//
// The comment of a rule begins with the name of its bridge. The comment of a set element names the
// attachment. The package finds rules and elements by these comments, so nothing is stored elsewhere.
//
// The package must not use chains of other programs, which are in package forward.
//
// Start with MissingRules in feature.go, which compares the tables with the plan. Then read the file of the
// topic, such as masquerade.go.
package ownrules
