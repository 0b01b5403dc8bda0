package nodes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// encoded returns the same list of Node objects twice: encoded as an API server sends it, and
// decoded.
func encoded(t testing.TB, count int) ([]byte, *corev1.NodeList) {
	t.Helper()
	list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: "4711"}}
	for i := range count {
		text, err := json.Marshal(member(i))
		if err != nil {
			t.Fatal(err)
		}
		n := corev1.Node{}
		if err := json.Unmarshal(text, &n); err != nil {
			t.Fatal(err)
		}
		n.Status.Images = n.Status.Images[:1] // TestDecodeCut takes long with large objects
		list.Items = append(list.Items, n)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := protobuf.NewSerializer(scheme, scheme).Encode(list, &text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes(), list
}

// TestDecode decodes lists of several lengths, and compares them with the lists that were encoded.
func TestDecode(t *testing.T) {
	w := &Watch{}
	for _, count := range []int{0, 1, 100} {
		text, want := encoded(t, count)
		got, err := w.decode(bufio.NewReader(iotest.OneByteReader(bytes.NewReader(text))))
		if err != nil {
			t.Fatalf("%d nodes: %v", count, err)
		}
		if got.ResourceVersion != want.ResourceVersion || len(got.Items) != count {
			t.Errorf("%d nodes of version %s, want %d of %s", len(got.Items), got.ResourceVersion, count, want.ResourceVersion)
		}
		same := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
		for i := range got.Items {
			if diff := cmp.Diff(Of(&want.Items[i]), Of(&got.Items[i]), same); diff != "" || len(got.Items[i].Status.Images) > 0 {
				t.Errorf("node %d: -want +got\n%s", i, diff)
			}
		}
	}
}

// TestDecodeCut checks that a list which ends too early is an error. With a list that lacks nodes, the
// agent would delete the routes to these nodes.
func TestDecodeCut(t *testing.T) {
	text, _ := encoded(t, 3)
	end := len(text) - 4 // the fields contentEncoding and contentType of two bytes each come after the list
	for size := 1; size < end; size++ {
		if got, err := (&Watch{}).decode(bufio.NewReader(bytes.NewReader(text[:size]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v, error %v", size, len(text), got, err)
		}
	}
	for name, text := range map[string]string{
		"JSON":         `{"kind": "NodeList"}`,
		"unknown type": listPrefix + "\x10\x01",
		"large object": listPrefix + "\x12\x7f\x12\xff\xff\xff\xff\x7f",
	} {
		if got, err := (&Watch{}).decode(bufio.NewReader(bytes.NewReader([]byte(text)))); err == nil {
			t.Errorf("%s: %v", name, fmt.Sprint(got))
		}
	}
}
