// Package attachment describes an attachment as CNI describes it: by the network configuration, the
// arguments of the runtime, and the result of an earlier ADD. It turns them into the plan of
// pkg/setup: a Network, a Port and an Attachment. The plugins and bvctl share this package, so ADD,
// CHECK, DEL and bvctl repair use the same plan.
//
// Start with config.go, which declares the configuration keys, and plan.go, which turns a
// configuration into a Port. Open in attached.go reads an attachment that exists. A Part is what
// one plugin has made for an attachment. It can be compared with the host and repaired.
//
// The package contains nothing about the verbs of CNI (plugins/), libcni's records (pkg/inventory)
// or IPAM plugins. Only pkg/setup calls the kernel.
package attachment
