package netns

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Batch is a list of netlink requests that one system call sends. The kernel processes the requests
// in order within that call. A killed process has therefore sent all of the requests or none. The
// kernel continues after a request that fails.
type Batch []step

type step struct {
	what string
	req  *nl.NetlinkRequest
	done []syscall.Errno // if the kernel answers with one of these errors, the request counts as successful
}

// accepts reports whether the request counts as successful in spite of an error.
func (s step) accepts(err error) bool {
	return slices.ContainsFunc(s.done, func(done syscall.Errno) bool { return errors.Is(err, done) })
}

// Add appends a request and returns it. The parameter "what" is the name of the request in errors.
func (b *Batch) Add(what string, req *nl.NetlinkRequest) *nl.NetlinkRequest {
	return b.Ensure(what, req)
}

// Ensure appends a request as Add does. If the kernel answers with one of the errors in the
// parameter done, such as EEXIST, the request counts as successful.
func (b *Batch) Ensure(what string, req *nl.NetlinkRequest, done ...syscall.Errno) *nl.NetlinkRequest {
	*b = append(*b, step{what, req, done})
	return req
}

// Send sends the batch to rtnetlink in the namespace. It returns the error of the first request that
// failed.
func (n *Namespace) Send(b Batch) error { return n.Exchange(unix.NETLINK_ROUTE, b, nil, nil) }

// Exchange sends three things at once: the message in begin, the requests of the batch, and the
// message in end. begin and end may be nil. Exchange waits for the answer to the last request of
// the batch, and returns the error of the first request that failed. If the kernel answers the
// message in begin with an error, it has refused the whole batch.
//
// Only the last request asks for an acknowledgement, because the socket has no room for thousands
// of acknowledgements. The kernel reports failed requests without being asked, and sends its
// answers in order.
func (n *Namespace) Exchange(protocol int, b Batch, begin, end *nl.NetlinkRequest) error {
	if len(b) == 0 {
		return nil
	}
	socket, err := n.socket(protocol)
	if err != nil {
		return err
	}
	last := len(b) - 1
	b[last].req.Flags |= unix.NLM_F_ACK
	var out []byte
	if begin != nil {
		out = begin.Serialize()
	}
	for _, s := range b {
		out = append(out, s.req.Serialize()...)
	}
	if end != nil {
		out = append(out, end.Serialize()...)
	}
	if err := socket.Send(out); err != nil {
		return err
	}
	var first error
	err = socket.Receive(func(m Message) bool {
		i := slices.IndexFunc(b, func(s step) bool { return s.req.Seq == m.sequence })
		switch {
		case m.Kind != unix.NLMSG_ERROR:
		case i >= 0:
			if err := m.Failure(); err != nil && !b[i].accepts(err) && first == nil {
				first = fmt.Errorf("%s: %w", b[i].what, err)
			}
			return i != last
		case begin != nil && m.sequence == begin.Seq:
			first = m.Failure()
			return false
		}
		return true
	})
	if errors.Is(err, unix.EAGAIN) { // the receive buffer was full, so only the first answers have arrived
		err = nil
		if first == nil {
			first = fmt.Errorf("receive from netlink: %w", unix.ENOBUFS)
		}
	}
	return errors.Join(err, first)
}
