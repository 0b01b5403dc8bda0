// Package loopback holds the verbs of the CNI plugin loopback, in place of the reference plugin of that
// name (docs/dropin.md). It sets the interface lo of a container up. It has no configuration keys and
// makes no kernel calls: pkg/setup does.
package loopback
