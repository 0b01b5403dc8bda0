// Package hostports decides which attachment has a host port. Each host port is an element of a map in bridgeveth's
// own tables of nf_tables:
//
//   - maps.go has the maps, mapping.go translates host ports to elements and back.
//   - publish.go adds and deletes the host ports of one attachment.
//   - waiting.go has the host ports that several interfaces of one container share.
//   - known.go fills new maps, for instance after "nft flush ruleset".
//
// The package adds no rules and no maps. Package ownrules adds both, with the rules that redirect packets by the
// maps.
//
// Start with Publish in publish.go.
package hostports
