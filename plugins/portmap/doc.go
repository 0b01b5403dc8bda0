// Package portmap holds the verbs of the CNI plugin portmap, which replaces the reference plugin of the
// same name (docs/dropin.md). It publishes ports of a container on the host. It comes after bridgeveth
// in the list of plugins and uses the same code as bridgeveth's capability portMappings. An interface
// that bridgeveth has not made is an error.
//
// The configuration keys are in config_portmap.go of pkg/attachment. The package makes no kernel calls:
// pkg/setup does.
package portmap
