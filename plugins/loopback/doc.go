// Package loopback holds the verbs of the CNI plugin loopback, which replaces the reference plugin
// of the same name (docs/dropin.md). The plugin sets up the interface lo of a container. It has no
// configuration keys. The package makes no kernel calls: pkg/setup makes them.
package loopback
