// Package ownrules keeps our own tables of nf_tables, one file for each topic: masquerade, host ports,
// the guard against spoofed addresses, the ingress policy, marks, and the host's loopback.
//
// The comment of a rule begins with the name of its bridge. The comment of a set element names the
// attachment. The package finds rules and elements by these comments, so nothing is stored elsewhere.
//
// The package must not know chains of other programs: see the package forward.
//
// Start with MissingRules in feature.go, which compares the tables with the plan. Then read the file of
// the topic, such as masquerade.go.
package ownrules
