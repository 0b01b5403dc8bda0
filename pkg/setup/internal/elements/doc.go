// Package elements reads, adds and deletes the elements of the sets and maps in bridgeveth's own tables of nf_tables. The
// comment of an element names the attachment to which the element belongs (owner.go).
//
// The package must not decide which elements exist. Package hostports decides this for host ports, and package
// ownrules for guards.
//
// Start with Change in elements.go.
package elements
