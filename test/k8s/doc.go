// Package k8s tests the node agent in a real Kubernetes cluster on one machine. The cluster has
// etcd, the API server, the controller manager, the scheduler, and nodes. Each node has network,
// mount and PID namespaces of its own, with a containerd, a kubelet and a kube-proxy. `make
// test-k8s` builds the programs and runs the tests, and `make test-k8s-conformance` runs
// Kubernetes' own specs. All processes of a cluster end with its test.
package k8s
