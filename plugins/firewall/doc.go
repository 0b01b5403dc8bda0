// Package firewall holds the verbs of the CNI plugin firewall, in place of the reference plugin of that
// name (docs/dropin.md). It accepts a network's packets in FORWARD chains that deny them, unless
// bridgeveth has done so already, and applies the ingress policy. It comes after bridgeveth in the list
// of plugins. An interface that bridgeveth has not made is an error.
//
// The configuration keys are in config_firewall.go of pkg/attachment. The package makes no kernel calls:
// pkg/setup does.
package firewall
