package setup

import (
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// batch is a list of requests for one send. The kernel works through them in
// order within that one system call, so that a killed process has sent either
// none or all, and it saves a round trip for each but the first. A request that
// fails does not keep the kernel from trying those after it.
type batch []step

type step struct {
	what string
	req  *nl.NetlinkRequest
}

// add appends a request; what names it in errors.
func (b *batch) add(what string, req *nl.NetlinkRequest) *nl.NetlinkRequest {
	req.Flags |= unix.NLM_F_ACK
	*b = append(*b, step{what, req})
	return req
}

// send sends the batch in the namespace and returns the error of the first
// request that failed.
func (n *Namespace) send(b batch) error {
	socket, err := n.socket(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	var out []byte
	pending := map[uint32]string{}
	for _, s := range b {
		out = append(out, s.req.Serialize()...)
		pending[s.req.Seq] = s.what
	}
	if err := unix.Sendto(socket.GetFd(), out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	var first error
	for len(pending) > 0 {
		replies, _, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("receive from netlink: %w", err)
		}
		for _, m := range replies {
			what, ours := pending[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			delete(pending, m.Header.Seq)
			if errno := -int32(nl.NativeEndian().Uint32(m.Data)); errno != 0 && first == nil {
				first = fmt.Errorf("%s: %w", what, syscall.Errno(errno))
			}
		}
	}
	return first
}
