// Package plan describes the wanted state of the host as data: a Network, which the containers on
// one bridge share, a Port for each container, host ports and policies. It also derives the names,
// aliases and MAC addresses of links from an Attachment.
//
// The package must not read or change the state of the kernel. Packages that import plan compare
// the kernel's state with a plan, and return a Difference for each missing object. A Difference has
// a name and a function that restores the object. ADD and repair call the function, CHECK and the
// doctor report the name, so all of them use the same plan.
//
// Start with Network in network.go and Port in port.go, then read Difference in difference.go.
package plan
