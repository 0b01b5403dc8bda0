// Package ownrules maintains the rules in bridgeveth's own tables of nf_tables, one file for each topic:
// masquerade.go, hostport.go, guard.go (spoofed addresses), policy.go (ingress policy, marks), and fastpath.go.
//
// The comment of a rule begins with the name of its bridge. The package finds rules by these comments, so it stores
// nothing elsewhere. It must not use chains of other programs. Package forward changes these chains. Package
// hostports decides which attachment has a host port.
//
// Start with MissingRules in feature.go, which compares the tables with the plan. Then read the file of a
// topic.
package ownrules
