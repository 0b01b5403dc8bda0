package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// receiveSize is the size of a receive buffer, in bytes. NLMSG_GOODSIZE (linux/netlink.h) would be too
// small for a message about a link with many virtual functions.
const receiveSize = 64 << 10

// Socket is a non-blocking netlink socket with one receive buffer. Non-blocking calls are
// sufficient, because the kernel answers a request before send(2) returns. If the socket has no
// room for an answer, the answer is lost.
//
// The socket of the library github.com/vishvananda/netlink is slower: it allocates 64 KB for each
// answer and waits through the Go runtime's poller.
type Socket struct {
	FD     int
	Buffer []byte
}

// NewSocket opens a socket of a netlink protocol (NETLINK_ROUTE, for instance) in the namespace. The
// caller closes the socket.
func (n *Namespace) NewSocket(protocol int) (*Socket, error) {
	s := &Socket{Buffer: make([]byte, receiveSize)}
	err := n.Do(func() (err error) {
		s.FD, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// With this option (Linux 4.20), a request for the addresses of one link works: the answer has
	// only the addresses of this link. Without the option, the answer has the addresses of all links.
	_ = unix.SetsockoptInt(s.FD, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return s, nil
}

// socket returns the socket of a protocol. The socket is opened at its first use.
func (n *Namespace) socket(protocol int) (*Socket, error) {
	if n.sockets[protocol] == nil {
		s, err := n.NewSocket(protocol)
		if err != nil {
			return nil, err
		}
		n.sockets[protocol] = s
	}
	return n.sockets[protocol], nil
}

// abandon closes the socket of a protocol after an incomplete listing. The kernel refuses a new
// listing on a socket on which an earlier one was not read to its end (netlink_dump_start in
// net/netlink/af_netlink.c).
func (n *Namespace) abandon(protocol int) {
	n.sockets[protocol].Close()
	delete(n.sockets, protocol)
}

// Close closes the socket. A second call does nothing, because the file descriptor may belong to
// another file by then.
func (s *Socket) Close() {
	if s.FD >= 0 {
		_ = unix.Close(s.FD) // an error cannot mean lost data, because nothing is buffered
	}
	s.FD = -1
}

// Send sends netlink requests to the kernel, which processes them in order before Send returns.
func (s *Socket) Send(requests []byte) error {
	_, err := unix.Write(s.FD, requests)
	if errors.Is(err, unix.EMSGSIZE) { // the requests are larger than net.core.wmem_default
		err = unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(requests))
		if err == nil {
			_, err = unix.Write(s.FD, requests)
		}
	}
	if err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	return nil
}

// Message is a netlink message from the kernel. Data is valid until the next Receive.
type Message struct {
	Kind, flags uint16
	sequence    uint32
	Data        []byte
}

// Receive reads messages from the socket and calls f with each message. It stops when f returns false.
func (s *Socket) Receive(f func(Message) bool) error {
	for {
		size, err := unix.Read(s.FD, s.Buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from netlink: %w", err)
		}
		for b := s.Buffer[:size]; len(b) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return fmt.Errorf("receive from netlink: message length %d: %w", length, os.ErrInvalid)
			}
			m := Message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]}
			if !f(m) {
				return nil
			}
			b = b[min(len(b), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// Failure returns the error that a message reports, or nil. The error is netlink.ErrDumpInterrupted if
// the listed objects changed during the listing.
func (m Message) Failure() error {
	switch {
	case m.flags&unix.NLM_F_DUMP_INTR != 0:
		return netlink.ErrDumpInterrupted
	case (m.Kind == unix.NLMSG_ERROR || m.Kind == unix.NLMSG_DONE) && len(m.Data) >= 4:
		if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
			return syscall.Errno(errno)
		}
	}
	return nil
}

// Ask sends one request and returns the data of all answers. A listing has many answers, every other
// request has one.
func (n *Namespace) Ask(protocol int, req *nl.NetlinkRequest) (answers [][]byte, err error) {
	err = n.Each(protocol, req, func(data []byte) bool {
		answers = append(answers, slices.Clone(data))
		return true
	})
	return answers, err
}

// Each sends one request and calls f with the data of each answer until f returns false. The kernel
// produces a listing in parts while Each reads it, so stopping early also saves the kernel's work. The
// parameter data of f is valid only until f returns.
func (n *Namespace) Each(protocol int, req *nl.NetlinkRequest, f func(data []byte) bool) error {
	s, err := n.socket(protocol)
	if err != nil {
		return err
	}
	if err := s.Send(req.Serialize()); err != nil {
		return err
	}
	var failed error
	enough := false
	err = s.Receive(func(m Message) bool {
		if m.sequence != req.Seq {
			return true
		}
		if failed == nil {
			failed = m.Failure()
		}
		if m.Kind == unix.NLMSG_ERROR || m.Kind == unix.NLMSG_DONE {
			return false
		}
		enough = !f(m.Data)
		return !enough && m.flags&unix.NLM_F_MULTI != 0
	})
	if err != nil || enough {
		n.abandon(protocol)
	}
	return errors.Join(err, failed)
}

// Dump calls list. If the listed objects change during the listing (NLM_F_DUMP_INTR), Dump calls
// list again. See Repeat.
func Dump[T any](list func() ([]T, error)) (all []T, err error) {
	err = Repeat(func() (err error) { all, err = list(); return err })
	return all, err
}

// ErrChanging is returned if other programs change links, addresses or rules all the time, so that
// no listing is complete.
var ErrChanging = errors.New("the kernel's list changed during each attempt to read it; find the program that makes the changes: ip monitor, nft monitor")

// attempts is the number of times that Repeat calls a function. A listing of a thousand links takes
// 30 ms. Even if 95 of 100 listings are interrupted, one of them succeeds.
const attempts = 300

// Repeat calls f again if the kernel's objects have changed while f has read them
// (netlink.ErrDumpInterrupted), or before f has sent a transaction for what it has read (ERESTART, from
// nf_tables). The error is ErrChanging if this happens too often.
func Repeat(f func() error) error {
	for range attempts {
		err := f()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return ErrChanging
}

// Attrs are the netlink attributes of a message, still encoded.
type Attrs []byte

// Each calls f with each attribute.
func (a Attrs) Each(f func(kind uint16, value []byte)) {
	for len(a) >= unix.SizeofRtAttr {
		size, kind := int(binary.NativeEndian.Uint16(a)), binary.NativeEndian.Uint16(a[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if size < unix.SizeofRtAttr || size > len(a) {
			return
		}
		f(kind, a[unix.SizeofRtAttr:size])
		a = a[min(len(a), (size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
}

// Get returns the value of an attribute, or nil if the attribute is missing. If the attribute occurs
// several times, Get returns the value of the last one.
func (a Attrs) Get(kind uint16) (value Attrs) {
	a.Each(func(k uint16, v []byte) {
		if k == kind {
			value = v
		}
	})
	return value
}

// In returns the value of a nested attribute. The parameter kinds is the path to this attribute: first
// the attributes that contain it, from the outermost to the innermost, then the attribute itself.
func (a Attrs) In(kinds ...uint16) Attrs {
	for _, kind := range kinds {
		a = a.Get(kind)
	}
	return a
}

// Text returns the value of an attribute as a string, without the zero byte at its end.
func (a Attrs) Text(kind uint16) string { return string(a.Word(kind)) }

// Word returns the same text as Text, but as a part of the message. It copies nothing.
func (a Attrs) Word(kind uint16) []byte {
	word, _, _ := bytes.Cut(a.Get(kind), []byte{0})
	return word
}

// Text returns the string at the beginning of b. The string ends before the first zero byte, or
// after size bytes.
func Text(b []byte, size int) string {
	s, _, _ := bytes.Cut(b[:min(size, len(b))], []byte{0})
	return string(s)
}

// Number returns a 32-bit attribute of nf_tables, which is in network byte order. It returns 0 if the
// attribute is missing.
func (a Attrs) Number(kind uint16) uint32 {
	value := a.Get(kind)
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// Sysctl reports whether a sysctl of a link is not 0. The attribute a holds the values of all
// sysctls as 32-bit numbers, and number is the index of the sysctl among them.
func (a Attrs) Sysctl(number int) bool {
	return len(a) >= 4*(number+1) && binary.NativeEndian.Uint32(a[4*number:]) != 0
}

// Integer returns a 32-bit attribute of rtnetlink, which is in the host's byte order. It returns 0 if
// the attribute is missing.
func (a Attrs) Integer(kind uint16) int {
	value := a.Get(kind)
	if len(value) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}
