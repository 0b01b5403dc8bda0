// Package ownrules keeps our own tables of nf_tables, by topic: masquerade, host ports, the guard
// against spoofed addresses, ingress policy and marks.
//
// A rule has a comment that begins with its bridge, and an element of a set has one that names its
// attachment: by these they are found again, so that nothing needs to be remembered elsewhere.
// Chains of others are none of its concern: see the package forward.
//
// Start with MissingRules (feature.go), then the file of a topic.
package ownrules
