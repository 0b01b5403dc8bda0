package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

func init() { runtime.LockOSThread() } // a started program ends with the thread that started it

// control is an API server with its etcd.
type control struct {
	t      *testing.T
	dir    string
	config *rest.Config
	api    *exec.Cmd
}

// newControl starts etcd and a kube-apiserver. The environment variable KUBE_APISERVER has the path
// of the kube-apiserver.
func newControl(t *testing.T) *control {
	c := &control{t: t, dir: t.TempDir(), config: &rest.Config{
		Host: "https://127.0.0.1:6443", BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}}
	if err := os.WriteFile(filepath.Join(c.dir, "tokens"), []byte("token,admin,admin,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := exec.Command("openssl", "genrsa", "2048").Output()
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.start("etcd", "--data-dir", filepath.Join(c.dir, "etcd"))
	c.startAPI()
	return c
}

func (c *control) startAPI() {
	key := filepath.Join(c.dir, "key")
	c.api = c.start(os.Getenv("KUBE_APISERVER"), "--etcd-servers", "http://127.0.0.1:2379", "--cert-dir", c.dir,
		"--service-cluster-ip-range", "10.96.0.0/16", "--advertise-address", "127.0.0.1", "--token-auth-file", filepath.Join(c.dir, "tokens"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://test", "--service-account-key-file", key, "--service-account-signing-key-file", key)
	c.await("the API server", func() bool { return c.try(http.MethodGet, "/readyz", nil) == nil })
}

// start starts a program and kills it when the test ends.
func (c *control) start(program string, args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(program, args...)
	log, err := os.Create(filepath.Join(c.dir, filepath.Base(program)+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // this fails only if the process has ended
	_ = cmd.Wait()         // the error is "signal: killed"
}

// try sends a request with a JSON body to the API server and returns the error.
func (c *control) try(method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/merge-patch+json"
	}
	_, err = c.send(method, path, kind, text)
	return err
}

// send sends a request to the API server. kind is the media type of body. send returns the body of
// the answer.
func (c *control) send(method, path, kind string, body []byte) (answer []byte, err error) {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, c.config.Host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", kind)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, err
}

func (c *control) do(method, path string, body any) {
	c.t.Helper()
	if err := c.try(method, path, body); err != nil {
		c.t.Fatal(err)
	}
}

// await waits until ok returns true. The test fails if this takes too long.
func (c *control) await(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("%s does not come", what)
		}
	}
}

type object = map[string]any

func newNode(name, podRange string) object {
	return object{"metadata": object{"name": name}, "spec": object{"podCIDR": podRange, "podCIDRs": []string{podRange}}}
}

// TestWatch checks that Watch follows the Node objects of a real API server when they are added,
// changed or deleted, and also when they change while the server is down.
func TestWatch(t *testing.T) {
	if os.Getenv("KUBE_APISERVER") == "" {
		t.Skip("LISTED SKIP: no kube-apiserver: set KUBE_APISERVER to its path")
	}
	setuptest.InHost(t, func() {
		c := newControl(t)
		woken := make(chan struct{}, 1000)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w, err := Start(ctx, c.config, "n1", func() { woken <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		// names returns the nodes that Watch has, as text.
		names := func() string {
			all, ok := w.List()
			text := fmt.Sprintf("%d %t", len(all), ok)
			for _, name := range []string{"n1", "n2", "n3"} {
				for _, n := range all {
					if n.Name == name {
						text += fmt.Sprintf(" %s%v%v", name, n.Ranges, n.Addresses)
					}
				}
			}
			return text
		}
		awaitNames := func(want string) {
			t.Helper()
			c.await(want, func() bool { return names() == want })
		}
		quiet := func() { // discards earlier wake-ups
			t.Helper()
			for len(woken) > 0 {
				<-woken
			}
		}
		<-woken // the wake-up for the empty list
		awaitNames("0 true")

		c.do(http.MethodPost, "/api/v1/nodes", newNode("n1", "10.244.1.0/24"))
		c.do(http.MethodPost, "/api/v1/nodes", newNode("n2", "10.244.2.0/24"))
		awaitNames("2 true n1[10.244.1.0/24][] n2[10.244.2.0/24][]")
		c.do(http.MethodPatch, "/api/v1/nodes/n1/status", object{"status": object{"addresses": []object{{"type": corev1.NodeInternalIP, "address": "172.30.0.11"}}}})
		awaitNames("2 true n1[10.244.1.0/24][172.30.0.11] n2[10.244.2.0/24][]")

		// A heartbeat of the kubelet must not call wake. The test changes n2 after the heartbeat.
		// When the change of n2 is visible, Watch has read the heartbeat too.
		quiet()
		c.do(http.MethodPatch, "/api/v1/nodes/n1/status", object{"status": object{"conditions": []object{{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}}}})
		c.do(http.MethodPatch, "/api/v1/nodes/n2/status", object{"status": object{"addresses": []object{{"type": corev1.NodeInternalIP, "address": "172.30.0.12"}}}})
		awaitNames("2 true n1[10.244.1.0/24][172.30.0.11] n2[10.244.2.0/24][172.30.0.12]")
		<-woken
		if len(woken) != 0 {
			t.Error("a heartbeat woke the agent")
		}
		if trouble := w.Trouble(); trouble != "" {
			t.Errorf("trouble: %s", trouble)
		}

		kill(c.api)
		c.await("trouble", func() bool { return strings.Contains(w.Trouble(), "connection refused") })
		awaitNames("2 true n1[10.244.1.0/24][172.30.0.11] n2[10.244.2.0/24][172.30.0.12]")
		c.startAPI()
		c.do(http.MethodDelete, "/api/v1/nodes/n2", nil)
		c.do(http.MethodPost, "/api/v1/nodes", newNode("n3", "10.244.3.0/24"))
		awaitNames("2 true n1[10.244.1.0/24][172.30.0.11] n3[10.244.3.0/24][]")
		c.await("no trouble", func() bool { return w.Trouble() == "" })
	})
}

// asAgent creates the agent's service account with the privileges of deploy/base/rbac.yaml. It
// returns a client configuration that has only these privileges.
func (c *control) asAgent() *rest.Config {
	c.t.Helper()
	text, err := os.ReadFile("../../../../deploy/base/rbac.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	paths := map[string]string{
		"ServiceAccount": "/api/v1/namespaces/kube-system/serviceaccounts", "ClusterRole": rbac + "clusterroles", "ClusterRoleBinding": rbac + "clusterrolebindings",
		"Role": rbac + "namespaces/default/roles", "RoleBinding": rbac + "namespaces/default/rolebindings",
	}
	c.await("the namespaces", func() bool {
		return c.try(http.MethodGet, "/api/v1/namespaces/kube-system", nil) == nil && c.try(http.MethodGet, "/api/v1/namespaces/default", nil) == nil
	})
	for _, object := range strings.Split(string(text), "\n---\n") {
		kind := regexp.MustCompile(`(?m)^kind: (\w+)$`).FindStringSubmatch(object)[1]
		if _, err := c.send(http.MethodPost, paths[kind], "application/yaml", []byte(object)); err != nil {
			c.t.Fatal(err)
		}
	}
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kube-system:bridgeveth-node"}
	return config
}

// TestWrite checks that the agent's privileges suffice to write Events and to clear a
// NetworkUnavailable condition that a cloud controller has set.
func TestWrite(t *testing.T) {
	if os.Getenv("KUBE_APISERVER") == "" {
		t.Skip("LISTED SKIP: no kube-apiserver: set KUBE_APISERVER to its path")
	}
	setuptest.InHost(t, func() {
		c := newControl(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w, err := Start(ctx, c.asAgent(), "n1", func() {})
		if err != nil {
			t.Fatal(err)
		}
		w.Report("Early", "before the Node object is known") // the Node object is not known yet, so this must do nothing
		unavailable := func() bool {
			all, _ := w.List()
			return len(all) == 1 && all[0].NetworkUnavailable
		}
		c.do(http.MethodPost, "/api/v1/nodes", newNode("n1", "10.244.1.0/24"))
		c.do(http.MethodPatch, "/api/v1/nodes/n1/status", object{"status": object{"conditions": []object{
			{"type": "Ready", "status": "True", "reason": "KubeletReady"}, {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"},
		}}})
		c.await("the condition", unavailable)
		if err := w.ClearNetworkUnavailable(ctx); err != nil {
			t.Fatal(err)
		}
		c.await("news of the change", func() bool { return !unavailable() })
		var node corev1.Node
		c.get("/api/v1/nodes/n1", &node)
		var got []string
		for _, condition := range node.Status.Conditions {
			got = append(got, fmt.Sprintf("%s %s %s", condition.Type, condition.Status, condition.Reason))
		}
		if want := "Ready True KubeletReady, NetworkUnavailable False RoutesStand"; strings.Join(got, ", ") != want {
			t.Errorf("conditions %q, want %s", got, want)
		}

		// Three equal Events must become one Event with the count 3.
		for range 3 {
			w.Report("ForwardDenied", "a chain denies")
		}
		w.Report("PodRangeExhausted", "all addresses are leased")
		var list corev1.EventList
		c.await("the Events", func() bool {
			c.get("/api/v1/namespaces/default/events", &list)
			return len(list.Items) == 2 && list.Items[0].Count+list.Items[1].Count == 4
		})
		for _, e := range list.Items {
			want := map[string]int32{"ForwardDenied a chain denies": 3, "PodRangeExhausted all addresses are leased": 1}[e.Reason+" "+e.Message]
			if e.Count != want || e.Type != "Warning" || e.InvolvedObject.Kind != "Node" || e.InvolvedObject.Name != "n1" || e.InvolvedObject.UID != node.UID || e.Source.Component != "bridgeveth-node" {
				t.Errorf("got %+v", e)
			}
		}
	})
}

// get reads the object at path from the API server.
func (c *control) get(path string, into any) {
	c.t.Helper()
	text, err := c.send(http.MethodGet, path, "application/json", nil)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestReconnect checks that the watch continues after Reconnect if its connection no longer passes data.
// This happens to a connection from an address that the host has lost. A long HTTP/2 timeout keeps the
// client from noticing this by itself.
func TestReconnect(t *testing.T) {
	if os.Getenv("KUBE_APISERVER") == "" {
		t.Skip("LISTED SKIP: no kube-apiserver: set KUBE_APISERVER to its path")
	}
	setuptest.InHost(t, func() {
		t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "3600")
		c := newControl(t)
		relay := &relay{}
		config := rest.CopyConfig(c.config)
		config.Host = "https://" + relay.start(t, "127.0.0.1:6443")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w, err := Start(ctx, config, "n1", func() {})
		if err != nil {
			t.Fatal(err)
		}
		count := func(want int) func() bool {
			return func() bool { all, _ := w.List(); return len(all) == want }
		}
		c.do(http.MethodPost, "/api/v1/nodes", newNode("n1", "10.244.1.0/24"))
		c.await("the first node", count(1))
		relay.freeze()
		c.do(http.MethodPost, "/api/v1/nodes", newNode("n2", "10.244.2.0/24"))
		w.Reconnect()
		c.await("the second node", count(2))
	})
}

// relay passes connections on to a server.
type relay struct {
	mutex sync.Mutex
	locks []*sync.Mutex // one for each connection; while it is locked, no data pass
}

// start returns the address at which the relay listens.
func (r *relay) start(t *testing.T, server string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			back, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			lock := &sync.Mutex{}
			r.mutex.Lock()
			r.locks = append(r.locks, lock)
			r.mutex.Unlock()
			for _, ends := range [][2]net.Conn{{client, back}, {back, client}} {
				go pass(ends[0], ends[1], lock)
			}
		}
	}()
	return listener.Addr().String()
}

// pass copies data until one of the connections ends.
func pass(from, to net.Conn, lock *sync.Mutex) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		lock.Lock()
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		lock.Unlock()
		if err != nil {
			from.Close()
			to.Close()
			return
		}
	}
}

// freeze stops all present connections until the test ends. They stay open.
func (r *relay) freeze() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, lock := range r.locks {
		lock.Lock()
	}
}
