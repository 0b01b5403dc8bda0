package k8s

import (
	"path/filepath"
	"strings"
)

// clusterDNS is the address of the Service kube-dns. kubelets write this address to the resolv.conf
// of pods.
const clusterDNS = "10.96.0.10"

// dns is the manifest of CoreDNS. The program is not in an image: the pod mounts it from the node.
// The test replaces PROGRAM by the program's path.
const dns = `apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [services, namespaces, pods], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      ready
      kubernetes cluster.local in-addr.arpa ip6.arpa
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {app: coredns}}
  template:
    metadata: {labels: {app: coredns}}
    spec:
      serviceAccountName: coredns
      terminationGracePeriodSeconds: 1
      containers:
      - name: coredns
        image: ` + podImage + `
        imagePullPolicy: Never
        command: [/bin/coredns, -conf, /etc/coredns/Corefile]
        readinessProbe: {httpGet: {port: 8181, path: /ready}, periodSeconds: 1}
        volumeMounts: [{name: program, mountPath: /bin/coredns}, {name: config, mountPath: /etc/coredns}]
      volumes:
      - {name: program, hostPath: {path: PROGRAM}}
      - {name: config, configMap: {name: coredns}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: ` + clusterDNS + `
  selector: {app: coredns}
  ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53, protocol: TCP}]
`

// startDNS runs CoreDNS.
func (c *cluster) startDNS() {
	c.Helper()
	c.apply(strings.ReplaceAll(dns, "PROGRAM", filepath.Join(k8sBin, "coredns")))
	c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout", "5m")
}

// testDNS checks that a pod of each node reaches a Service by the Service's DNS name.
func (c *cluster) testDNS() {
	c.Helper()
	c.startDNS()
	for _, p := range c.pods() {
		c.awaitCall(c.from(p), "web.default.svc.cluster.local", "70")
		c.awaitCall(c.from(p), "web", "70")
	}
	c.Logf("names of Services: answered on all nodes")
}
