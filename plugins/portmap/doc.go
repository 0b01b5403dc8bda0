// Package portmap holds the verbs of the CNI plugin portmap, which replaces the reference plugin of
// the same name (docs/dropin.md). The plugin publishes ports of a container on the host. It uses
// the same code as bridgeveth's capability portMappings. It must come after bridgeveth in the list
// of plugins. For an interface that bridgeveth has not made, it returns an error.
//
// The configuration keys are in config_portmap.go of pkg/attachment. The package makes no kernel
// calls: pkg/setup makes them.
package portmap
