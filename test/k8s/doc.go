// Package k8s tests the node agent in a real Kubernetes cluster on one machine. The cluster has
// etcd, the API server, the controller manager, the scheduler, and nodes. Each node is a set of
// network, mount and PID namespaces with its own containerd, kubelet and kube-proxy. make
// test-k8s builds the programs and runs the tests. Everything of a cluster ends with its test.
package k8s
