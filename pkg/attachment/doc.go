// Package attachment describes one attachment as CNI describes it: the network configuration, what
// the runtime asks for, and the result of an earlier ADD. It turns them into the plan of
// pkg/setup: a Network, a Port and an Attachment. The plugins and bvctl share this package, so
// ADD, CHECK, DEL and repair use the same plan.
//
// Start with config.go, which declares the configuration keys, and plan.go, which makes a Port of
// them. Open in attached.go reads an attachment that exists. A Part compares the part of one
// plugin with the host and repairs it.
//
// The package does not know the verbs of CNI (plugins/), libcni's records (pkg/inventory) or IPAM
// plugins. Only pkg/setup calls the kernel.
package attachment
