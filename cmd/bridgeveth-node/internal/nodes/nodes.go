// Package nodes reads the Node objects of a cluster from the API server with a single watch
// request. It also writes Events about the own Node object, and the condition NetworkUnavailable of
// this object.
package nodes

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/connrotation"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

// Watch holds the Node objects as the API server sent them last.
type Watch struct {
	self     string // name of the own Node object
	informer cache.SharedIndexInformer
	dialer   *connrotation.Dialer
	trouble  atomic.Value // string: why the last request of the watch failed, "" if it did not
	writer
}

// Start watches the Node objects until ctx ends. It calls wake after each change of a field that
// the agent uses. While the API server does not answer, the objects keep their last state. When the
// server answers again, the watch updates them from a new list. self is the name of the own Node
// object.
func Start(ctx context.Context, config *rest.Config, self string, wake func()) (*Watch, error) {
	w := &Watch{self: self}
	w.trouble.Store("no answer yet")
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	watched, limited := rest.CopyConfig(config), rest.CopyConfig(config)
	watched.Wrap(func(next http.RoundTripper) http.RoundTripper { return observer{w, next} })
	limited.Timeout = writeTimeout
	w.dialer = connrotation.NewDialer((&net.Dialer{Timeout: dialTimeout}).DialContext)
	watched.Dial, limited.Dial = w.dialer.DialContext, w.dialer.DialContext
	reader, err := client(watched, scheme)
	if err != nil {
		return nil, err
	}
	writer, err := client(limited, scheme)
	if err != nil {
		return nil, err
	}
	w.writer = newWriter(ctx, writer, scheme, self)
	list := cache.NewListWatchFromClient(reader, "nodes", "", fields.Everything())
	list.ListWithContextFunc = func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return w.list(ctx, reader, options)
	}
	w.informer = cache.NewSharedIndexInformer(list, &corev1.Node{}, 0, cache.Indexers{})
	if err := w.informer.SetTransform(func(object any) (any, error) {
		if n, ok := object.(*corev1.Node); ok {
			return w.strip(n), nil
		}
		return object, nil // a deleted object in its last known state, which was stripped before
	}); err != nil {
		return nil, err
	}
	_, err = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { wake() },
		DeleteFunc: func(any) { wake() },
		UpdateFunc: func(before, after any) { // ignores heartbeats, because kubelets update their Node every few minutes
			if !reflect.DeepEqual(Of(before.(*corev1.Node)), Of(after.(*corev1.Node))) {
				wake()
			}
		},
	})
	if err != nil {
		return nil, err
	}
	go func() {
		cache.WaitForCacheSync(ctx.Done(), w.informer.HasSynced)
		wake() // needed if the list is empty
	}()
	go w.informer.RunWithContext(ctx)
	return w, nil
}

// Reconnect closes all connections to the API server. New requests then open new connections. The agent
// calls Reconnect when the host has lost an address: packets of a connection from this address get no
// answer, and the client would notice this only after 45 seconds.
func (w *Watch) Reconnect() { w.dialer.CloseAll() }

// dialTimeout is the time limit for opening a connection, as in client-go.
const dialTimeout = 30 * time.Second

// writeTimeout is the time limit of a request that writes an Event or a condition. The watch has no
// time limit.
const writeTimeout = 10 * time.Second

// client returns a client of the API server. The client has only the core types of Kubernetes,
// because all types would take about 20 MiB of memory.
func client(config *rest.Config, scheme *runtime.Scheme) (*rest.RESTClient, error) {
	config.GroupVersion, config.APIPath = &corev1.SchemeGroupVersion, "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", config.Host, err)
	}
	return c, nil
}

// observer stores the error of the last request that a Watch has sent.
type observer struct {
	watch *Watch
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (o observer) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := o.next.RoundTrip(request)
	switch {
	case err != nil:
		o.watch.trouble.Store(err.Error())
	case answer.StatusCode >= 400 && answer.StatusCode != http.StatusGone: // with 410 Gone, the client starts the watch again
		o.watch.trouble.Store(request.URL.Host + " answers " + answer.Status)
	default:
		o.watch.trouble.Store("")
	}
	return answer, err
}

// Trouble returns the reason why the API server does not answer, or "" if it answers.
func (w *Watch) Trouble() string { return w.trouble.Load().(string) }

// List returns all nodes. ok is false until the API server has sent the first list.
func (w *Watch) List() (all []cluster.Node, ok bool) {
	for _, n := range w.informer.GetStore().List() {
		all = append(all, Of(n.(*corev1.Node)))
	}
	return all, w.informer.HasSynced()
}

// Of returns the fields of a Node object that the agent uses. It omits invalid ranges and
// addresses. The API server does not accept such values anyway.
func Of(n *corev1.Node) cluster.Node {
	node := cluster.Node{Name: n.Name, Created: n.CreationTimestamp.Time}
	ranges := n.Spec.PodCIDRs
	if len(ranges) == 0 && n.Spec.PodCIDR != "" {
		ranges = []string{n.Spec.PodCIDR}
	}
	for _, text := range ranges {
		if p, err := netip.ParsePrefix(text); err == nil {
			node.Ranges = append(node.Ranges, p.Masked())
		}
	}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			node.Addresses = append(node.Addresses, ip.Unmap())
		}
	}
	node.NetworkUnavailable = slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue
	})
	return node
}

// strip returns a Node object with only those fields that Of or the watch needs. In a large cluster,
// the other fields would take most of the agent's memory.
func (w *Watch) strip(n *corev1.Node) *corev1.Node {
	var conditions []corev1.NodeCondition
	for _, c := range n.Status.Conditions {
		if n.Name == w.self && c.Type == corev1.NodeNetworkUnavailable {
			conditions = append(conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
		}
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, CreationTimestamp: n.CreationTimestamp},
		Spec:       corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses, Conditions: conditions},
	}
}
