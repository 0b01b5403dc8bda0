package nodes

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
)

// component is the name of the agent in Events and conditions.
const component = "bridgeveth-node"

// writer writes Events about the own Node object, and the condition NetworkUnavailable of this
// object.
type writer struct {
	client   *rest.RESTClient
	recorder record.EventRecorder
}

// newWriter returns a writer whose requests end with ctx. Its recorder writes equal Events as one
// Event with a count, and limits the number of Events.
func newWriter(ctx context.Context, client *rest.RESTClient, scheme *runtime.Scheme, self string) writer {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(sink{ctx, client})
	return writer{client, broadcaster.NewRecorder(scheme, corev1.EventSource{Component: component, Host: self})}
}

// Report writes a warning Event about the own Node object. It does not wait for the API server. If
// the API server has not sent the own Node object yet, Report does nothing.
func (w *Watch) Report(reason, message string) {
	if own, known, _ := w.informer.GetStore().GetByKey(w.self); known { // the store returns no errors
		w.recorder.Event(own.(*corev1.Node), corev1.EventTypeWarning, reason, message)
	}
}

// ClearNetworkUnavailable sets the condition NetworkUnavailable of the own Node object to False.
func (w *Watch) ClearNetworkUnavailable(ctx context.Context) error {
	now := metav1.NewTime(time.Now())
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, LastHeartbeatTime: now, LastTransitionTime: now,
		Reason: "RoutesStand", Message: component + " keeps the routes to the pods of other nodes",
	}}}})
	if err != nil {
		return err
	}
	return w.client.Patch(types.StrategicMergePatchType).Resource("nodes").Name(w.self).SubResource("status").Body(patch).Do(ctx).Error()
}

// sink receives the Events from the recorder and writes them to the API server.
type sink struct {
	ctx    context.Context
	client *rest.RESTClient
}

// Create writes a new Event. It implements record.EventSink.
func (s sink) Create(e *corev1.Event) (*corev1.Event, error) {
	return s.into(s.client.Post().Namespace(e.Namespace).Resource("events").Body(e))
}

// Update replaces an Event. It implements record.EventSink.
func (s sink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.into(s.client.Put().Namespace(e.Namespace).Resource("events").Name(e.Name).Body(e))
}

// Patch changes an Event. It implements record.EventSink.
func (s sink) Patch(e *corev1.Event, patch []byte) (*corev1.Event, error) {
	return s.into(s.client.Patch(types.StrategicMergePatchType).Namespace(e.Namespace).Resource("events").Name(e.Name).Body(patch))
}

// into sends a request and returns the Event in the answer.
func (s sink) into(request *rest.Request) (*corev1.Event, error) {
	e := &corev1.Event{}
	return e, request.Do(s.ctx).Into(e)
}
