package nodes

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// In Kubernetes' protobuf encoding, a list of Node objects is the prefix "k8s\x00", followed by a message
// of type runtime.Unknown (k8s.io/apimachinery/pkg/runtime/generated.proto). The field raw of this message
// contains a message of type NodeList (k8s.io/api/core/v1/generated.proto). All fields of both messages
// begin with a length.
const (
	listPrefix   = "k8s\x00"
	unknownRaw   = 2
	listMetadata = 1
	listItems    = 2
	lengthFirst  = 2 // the wire type of such a field

	largest = 16 << 20 // no Node object is larger, because etcd refuses objects of more than 1.5 MiB
)

// list reads Node objects from the API server. It decodes one object at a time. Before it reads the next
// object, it removes the fields that the agent does not use. The client library would read the whole list
// before it decodes an object. In a cluster of 5,000 nodes, this takes 50 to 200 MiB of memory.
func (w *Watch) list(ctx context.Context, client *rest.RESTClient, options metav1.ListOptions) (runtime.Object, error) {
	body, err := client.Get().Resource("nodes").VersionedParams(&options, metav1.ParameterCodec).
		SetHeader("Accept", runtime.ContentTypeProtobuf).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	list, err := w.decode(bufio.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the list of Node objects: %w", err)
	}
	return list, nil
}

// decode decodes a list. It returns an error if the list is not complete.
func (w *Watch) decode(r *bufio.Reader) (*corev1.NodeList, error) {
	prefix := make([]byte, len(listPrefix))
	if _, err := io.ReadFull(r, prefix); err != nil {
		return nil, err
	}
	if string(prefix) != listPrefix {
		return nil, fmt.Errorf("the answer begins with %q and is not in protobuf", prefix)
	}
	for {
		field, size, err := header(r)
		if err != nil {
			return nil, noEnd(err)
		}
		if field == unknownRaw {
			rest := &io.LimitedReader{R: r, N: size}
			return w.decodeItems(bufio.NewReader(rest), rest)
		}
		if _, err := io.CopyN(io.Discard, r, size); err != nil {
			return nil, noEnd(err)
		}
	}
}

// decodeItems decodes a NodeList from r. r reads from rest, which is limited to the size of the NodeList.
// If r ends although rest.N is not 0, the NodeList is incomplete.
func (w *Watch) decodeItems(r *bufio.Reader, rest *io.LimitedReader) (*corev1.NodeList, error) {
	list, buffer := &corev1.NodeList{}, []byte{}
	for {
		field, size, err := header(r)
		if errors.Is(err, io.EOF) && rest.N == 0 {
			return list, nil
		}
		if err != nil {
			return nil, noEnd(err)
		}
		if size > largest {
			return nil, fmt.Errorf("an object of %d bytes", size)
		}
		if int64(cap(buffer)) < size {
			buffer = make([]byte, size)
		}
		buffer = buffer[:size]
		if _, err := io.ReadFull(r, buffer); err != nil {
			return nil, noEnd(err)
		}
		switch field {
		case listMetadata:
			err = list.ListMeta.Unmarshal(buffer)
		case listItems:
			n := &corev1.Node{}
			if err = n.Unmarshal(buffer); err == nil {
				list.Items = append(list.Items, *w.strip(n))
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// header reads the number and the size of the next field.
func header(r *bufio.Reader) (field uint64, size int64, err error) {
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, err
	}
	if tag&7 != lengthFirst {
		return 0, 0, fmt.Errorf("field %d has the unknown type %d", tag>>3, tag&7)
	}
	n, err := binary.ReadUvarint(r)
	return tag >> 3, int64(min(n, 1<<62)), noEnd(err)
}

// noEnd turns the error io.EOF into io.ErrUnexpectedEOF, and returns other errors unchanged. It is
// for places at which the list must not end.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
