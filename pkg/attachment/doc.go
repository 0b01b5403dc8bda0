// Package attachment describes one attachment as CNI describes it: the network configuration,
// what the runtime asks for, and the result of an earlier ADD. It turns them into the plan of
// pkg/setup: a Network, a Port and an Attachment. The plugins and bvctl share this description, so
// ADD, CHECK, DEL and repair mean the same thing.
//
// Start with config.go, which declares the configuration keys, and plan.go, which makes a Port of
// them. Open in attached.go reads an attachment that exists; a Part compares the part of one
// plugin with the host and repairs it.
//
// The package does not know the verbs of CNI, which are in plugins/, IPAM plugins, or libcni's
// records, which are in pkg/inventory. Only pkg/setup calls the kernel.
package attachment
