package nodes

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

func TestOf(t *testing.T) {
	created := time.Unix(1700000000, 0)
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", CreationTimestamp: metav1.NewTime(created), Labels: map[string]string{"a": "b"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24", "fd00:1::/64"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
				{Type: corev1.NodeInternalIP, Address: "172.30.0.11"}, {Type: corev1.NodeInternalIP, Address: "fd00::11"},
			},
			Images: make([]corev1.ContainerImage, 50),
			Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: "NoRouteCreated"},
			},
		},
	}
	want := cluster.Node{
		Name: "n1", Created: created,
		Ranges:    []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00::11")},

		NetworkUnavailable: true,
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	if diff := cmp.Diff(want, Of(object), same); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	stripped := (&Watch{self: "n1"}).strip(object)
	if diff := cmp.Diff(want, Of(stripped), same); diff != "" {
		t.Errorf("stripped: -want +got\n%s", diff)
	}
	if len(stripped.Status.Images) != 0 || stripped.Labels != nil || len(stripped.Status.Conditions) != 1 {
		t.Errorf("kept in memory: %v", stripped)
	}
	if foreign := (&Watch{self: "n2"}).strip(object); len(foreign.Status.Conditions) != 0 {
		t.Error("conditions of another node are kept in memory")
	}
	object.Spec.PodCIDRs = nil // as in a Node object that was written by hand
	if got := Of(object).Ranges; len(got) != 1 || got[0] != want.Ranges[0] {
		t.Errorf("ranges of spec.podCIDR alone: %v", got)
	}
}
