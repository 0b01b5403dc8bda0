// Package firewall holds the verbs of the CNI plugin firewall, which replaces the reference plugin
// of the same name (docs/dropin.md). The plugin adds rules to FORWARD chains that would drop a
// network's packets, unless bridgeveth has done so already. It also applies the ingress policy. It
// must come after bridgeveth in the list of plugins. For an interface that bridgeveth has not made,
// it returns an error.
//
// The configuration keys are in config_firewall.go of pkg/attachment. The package makes no kernel
// calls: pkg/setup makes them.
package firewall
