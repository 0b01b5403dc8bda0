package netns

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Batch is a list of requests for one send. The kernel works through them in
// order within that one system call, so that a killed process has sent either
// none or all, and it saves a round trip for each but the first. A request that
// fails does not keep the kernel from trying those after it.
type Batch []step

type step struct {
	what string
	req  *nl.NetlinkRequest
	done syscall.Errno // with it the kernel says that it is so already
}

// Add appends a request; what names it in errors.
func (b *Batch) Add(what string, req *nl.NetlinkRequest) *nl.NetlinkRequest {
	return b.Ensure(what, req, 0)
}

// Ensure is add, with an answer of the kernel's that means success as well.
func (b *Batch) Ensure(what string, req *nl.NetlinkRequest, done syscall.Errno) *nl.NetlinkRequest {
	*b = append(*b, step{what, req, done})
	return req
}

// Send sends the batch in the namespace and returns the error of the first
// request that failed.
func (n *Namespace) Send(b Batch) error { return n.Exchange(unix.NETLINK_ROUTE, b, nil, nil) }

// Exchange sends the batch, between begin and end where these are given, and waits for the
// answer to its last request. Of those before it only what fails is answered, and before: a
// word for each would not fit in the socket where they are thousands. An answer to begin is
// about all of it.
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
			if err := m.Failure(); err != nil && !errors.Is(err, b[i].done) && first == nil {
				first = fmt.Errorf("%s: %w", b[i].what, err)
			}
			return i != last
		case begin != nil && m.sequence == begin.Seq:
			first = m.Failure()
			return false
		}
		return true
	})
	if errors.Is(err, unix.EAGAIN) { // answers were lost, after the first that count
		err = nil
		if first == nil {
			first = fmt.Errorf("receive from netlink: %w", unix.ENOBUFS)
		}
	}
	return errors.Join(err, first)
}
