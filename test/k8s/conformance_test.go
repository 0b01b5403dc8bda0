package k8s

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/test/harness"
)

// e2eDir is the folder with the programs that hack/e2e.sh has built. Only make test-k8s-conformance
// sets the variable E2E_DIR.
var e2eDir = os.Getenv("E2E_DIR")

// ours is the network of the node agent. All specs must pass on this network.
const ours = "bridgeveth"

// e2eImage is the image of the pods that the specs run.
const e2eImage = "localhost/e2e:latest"

// conformance matches the names of the network specs that every Kubernetes cluster must pass.
var conformance = regexp.MustCompile(`\[sig-network\].*\[Conformance\]`)

// referenceNode is the network configuration of a node with the reference plugins. The test
// replaces RANGES by the node's pod ranges.
const referenceNode = `{"cniVersion": "1.0.0", "name": "reference", "plugins": [
  {"type": "bridge", "bridge": "ref0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {"type": "host-local", "ranges": [RANGES]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// TestConformance runs Kubernetes' own network specs in a cluster with the node agent.
func TestConformance(t *testing.T) {
	inConformance(t, ours, func(c *cluster) {
		c.kubectl("apply", "-k", "../../deploy")
		c.awaitAgents()
	})
}

// TestConformanceReference runs the same specs in a cluster with the reference plugins. The test
// itself adds the routes between the nodes.
func TestConformanceReference(t *testing.T) {
	inConformance(t, "reference", func(c *cluster) {
		bin := filepath.Join(dir, "reference")
		if err := harness.Build(bin, "bridgeveth", "bridge", "host-local", "loopback", "portmap"); err != nil {
			c.Fatal(err)
		}
		for _, n := range c.nodes {
			n.run("cp", bin+"/bridge", bin+"/host-local", bin+"/loopback", bin+"/portmap", "/opt/cni/bin")
			var ranges []string
			for _, r := range c.ranges(n) {
				ranges = append(ranges, fmt.Sprintf(`[{"subnet": %q}]`, r))
				for _, other := range c.nodes {
					if other != n {
						other.run("ip", "route", "add", r, "via", n.via(r))
					}
				}
			}
			conflist := filepath.Join(bin, n.name+".conflist")
			c.write(conflist, strings.ReplaceAll(referenceNode, "RANGES", strings.Join(ranges, ", ")))
			n.run("cp", conflist, "/etc/cni/net.d/10-reference.conflist")
		}
	})
}

// inConformance makes a cluster, calls the function install to set up the network, and runs the
// specs. It writes the result of each spec to the file NETWORK.results in e2eDir.
func inConformance(t *testing.T, network string, install func(c *cluster)) {
	if e2eDir == "" {
		t.Skip("LISTED SKIP: make test-k8s-conformance runs this test")
	}
	inCluster(t, shape{nodes: 2, proxy: "iptables"}, func(c *cluster) {
		c.awaitNodes()
		for _, n := range c.nodes {
			for _, r := range c.ranges(n) { // the API server connects to pods
				run(c, "ip", "route", "add", r, "via", n.via(r))
			}
		}
		install(c)
		c.awaitReady()
		c.startDNS()
		c.runSpecs(network)
	})
}

// ranges returns the pod ranges of a node.
func (c *cluster) ranges(n *node) []string {
	c.Helper()
	return strings.Fields(c.kubectl("get", "node", n.name, "-o", `jsonpath={.spec.podCIDRs[*]}`))
}

// via returns the node's address of the same IP family as a range.
func (n *node) via(r string) string {
	return n.ips[slices.IndexFunc(n.ips, func(ip string) bool { return strings.Contains(ip, ":") == strings.Contains(r, ":") })]
}

// runSpecs runs the specs. If the network is ours, the test fails if a spec does not pass. If
// E2E_FOCUS selects some specs, runSpecs runs only these specs and writes no results.
func (c *cluster) runSpecs(network string) {
	c.Helper()
	focus, some := os.LookupEnv("E2E_FOCUS")
	if !some {
		focus = conformance.String()
	}
	file := filepath.Join(e2eDir, network+".json")
	log, err := os.Create(filepath.Join(e2eDir, network+".log"))
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(e2eDir, "e2e.test"), "-kubeconfig", kubeconfig("admin"), "-kubectl-path", filepath.Join(k8sBin, "kubectl"),
		"-provider", "skeleton", "-ginkgo.focus", focus, "-ginkgo.no-color", "-ginkgo.timeout", "3h", "-ginkgo.json-report", file)
	cmd.Stdout, cmd.Stderr = log, log
	runErr := cmd.Run() // also fails if a spec fails

	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeText, State     string
			Failure                 struct{ Message string }
		}
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &suites)
	}
	if err != nil || len(suites) != 1 {
		c.Fatalf("no report of the specs: %v, %v; see %s", runErr, err, log.Name())
	}
	report, results := c.Errorf, []string{}
	if network != ours {
		report = c.Logf
	}
	for _, spec := range suites[0].SpecReports {
		name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
		deselected := spec.State == "skipped" && (some || !conformance.MatchString(name))
		if spec.State != "passed" && !deselected {
			report("%s: %s: %s; see %s", name, spec.State, spec.Failure.Message, log.Name())
		}
		if conformance.MatchString(name) {
			results = append(results, name+"\t"+spec.State+"\n")
		}
	}
	if !some {
		slices.Sort(results)
		c.write(filepath.Join(e2eDir, network+".results"), strings.Join(results, ""))
	}
}
