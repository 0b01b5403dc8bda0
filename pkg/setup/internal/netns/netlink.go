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

// receiveSize is what the kernel may answer at once, in bytes: NLMSG_GOODSIZE in
// linux/netlink.h is less, but a link with many virtual functions takes more.
const receiveSize = 64 << 10

// Socket is a netlink socket, for what every ADD and DEL asks and says. It does not
// block: the kernel has answered by the time a message is sent, and an answer that had no room
// is lost. It takes all answers in one buffer. The library's own has a new one of 64 KB for each answer, fresh memory that
// costs more than many an answer does, and waits by the Go runtime's poller.
type Socket struct {
	FD     int
	Buffer []byte
}

// NewSocket opens a socket in the namespace, which the caller closes.
func (n *Namespace) NewSocket(protocol int) (*Socket, error) {
	s := &Socket{Buffer: make([]byte, receiveSize)}
	err := n.Do(func() (err error) {
		s.FD, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// With it the kernel lists the addresses of the link that was named, from Linux 4.20 on;
	// before, and without, those of all links.
	_ = unix.SetsockoptInt(s.FD, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return s, nil
}

// socket returns the namespace's socket of a protocol, opened at its first use.
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

// abandon closes a socket on which an answer, or the rest of one, was not read: until it is
// the kernel takes no other listing (netlink_dump_start in net/netlink/af_netlink.c).
func (n *Namespace) abandon(protocol int) {
	n.sockets[protocol].Close()
	delete(n.sockets, protocol)
}

// Close may be called again: the number may be another file's by then.
func (s *Socket) Close() {
	if s.FD >= 0 {
		_ = unix.Close(s.FD) // nothing is buffered
	}
	s.FD = -1
}

// Send sends bytes to the kernel, which works through the requests in them, in order, before
// it returns.
func (s *Socket) Send(requests []byte) error {
	_, err := unix.Write(s.FD, requests)
	if errors.Is(err, unix.EMSGSIZE) { // more than net.core.wmem_default
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

// Message is one of the kernel's. data is good until the next are received.
type Message struct {
	Kind, flags uint16
	sequence    uint32
	Data        []byte
}

// Receive calls f with messages until it says false.
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
				return fmt.Errorf("receive from netlink: a message of %d bytes: %w", length, os.ErrInvalid)
			}
			m := Message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]}
			if !f(m) {
				return nil
			}
			b = b[min(len(b), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// Failure is what an answer says that is an error, an acknowledgement or the end of a
// listing.
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

// Ask sends one request and returns the data of the answers to it: of a listing all, and
// otherwise the one.
func (n *Namespace) Ask(protocol int, req *nl.NetlinkRequest) (answers [][]byte, err error) {
	err = n.Each(protocol, req, func(data []byte) bool {
		answers = append(answers, slices.Clone(data))
		return true
	})
	return answers, err
}

// Each sends one request and calls f with the data of each answer to it until f says false. The
// kernel lists as much at a time as fits into a buffer, so that what f does not want to see costs
// little. data is good until the next call.
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

// Dump calls a listing again for as long as the kernel says that it changed
// while it was read (NLM_F_DUMP_INTR).
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

// Attrs are netlink attributes, as they came.
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

// Get returns an attribute's value, nil if there is none. Of several the last counts.
func (a Attrs) Get(kind uint16) (value Attrs) {
	a.Each(func(k uint16, v []byte) {
		if k == kind {
			value = v
		}
	})
	return value
}

// In is get of an attribute within others.
func (a Attrs) In(kinds ...uint16) Attrs {
	for _, kind := range kinds {
		a = a.Get(kind)
	}
	return a
}

// Text reads a name: what is before its zero byte, if it has one.
func (a Attrs) Text(kind uint16) string { return string(a.Word(kind)) }

// Word is text in place.
func (a Attrs) Word(kind uint16) []byte {
	word, _, _ := bytes.Cut(a.Get(kind), []byte{0})
	return word
}

// Text reads a string that ends with a zero byte or after size bytes.
func Text(b []byte, size int) string {
	s, _, _ := bytes.Cut(b[:size], []byte{0})
	return string(s)
}

// Number reads a 32-bit attribute of nf_tables, 0 if it is missing.
func (a Attrs) Number(kind uint16) uint32 {
	value := a.Get(kind)
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// Sysctl says whether one of those of a link, 32 bits each, is on.
func (a Attrs) Sysctl(number int) bool {
	return len(a) >= 4*(number+1) && binary.NativeEndian.Uint32(a[4*number:]) != 0
}

// Integer reads a 32-bit attribute of rtnetlink, 0 if it is missing.
func (a Attrs) Integer(kind uint16) int {
	value := a.Get(kind)
	if len(value) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}
