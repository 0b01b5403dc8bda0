// Package loopback holds the verbs of the CNI plugin loopback, which replaces the reference plugin of
// the same name (docs/dropin.md). It sets up the interface lo of a container. It has no configuration
// keys and makes no kernel calls: pkg/setup does.
package loopback
