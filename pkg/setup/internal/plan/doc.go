// Package plan describes what should be there: a Network and what the containers on one bridge
// share, a Port and the container behind it, host ports, policies. It also names them: the
// names, aliases and MAC addresses of links follow from an Attachment.
//
// It is data and has no kernel in it. The packages above compare the kernel's state with a plan;
// each Difference that they find names itself and restores itself, so that ADD, CHECK, repair
// and the doctor all work by one description.
//
// Start with Network and Port, then Difference.
package plan
