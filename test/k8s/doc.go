// Package k8s runs the node agent in a real Kubernetes cluster on one machine: etcd, the API server,
// the controller manager, the scheduler, and nodes that are network, mount and PID namespaces with a
// containerd, a kubelet and a kube-proxy of their own. make test-k8s builds the programs and runs
// the tests. Nothing of a cluster outlives its test.
package k8s
