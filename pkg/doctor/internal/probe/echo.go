package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Smallest is the size of a small request in bytes, including its IP header. It is less than any
// MTU.
const Smallest = 84

const (
	answerWait = 500 * time.Millisecond

	echoRequest4, echoReply4 = 8, 0     // RFC 792
	echoRequest6, echoReply6 = 128, 129 // RFC 4443
	echoHeader               = 8        // bytes
	echoID                   = 4        // offset of the ID in the header

	headersMax = 60 + echoHeader // bytes; the longest IPv4 header has 60
)

// Echo is a socket for ICMP echo requests in a namespace.
type Echo struct {
	from netip.Addr
	fd   int
	to   netip.Addr
	id   uint16
	next uint16 // the last sequence number
}

// NewEcho opens a socket for requests from one address to another. The packets of the socket are
// never fragmented. The socket has its own ICMP ID, so its packets are a new connection for
// conntrack.
func NewEcho(ns *setup.Namespace, from, to netip.Addr) (*Echo, error) {
	p := &Echo{from: from, to: to, id: uint16(rand.Uint32())}
	err := ns.Do(func() (err error) {
		if to.Is4() {
			p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		} else {
			p.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		}
		if err != nil {
			return fmt.Errorf("open a socket for ICMP: %w", err)
		}
		if to.Is4() {
			err = errors.Join(
				unix.SetsockoptInt(p.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE),
				unix.Bind(p.fd, &unix.SockaddrInet4{Addr: from.As4()}))
		} else {
			err = errors.Join(
				unix.SetsockoptInt(p.fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
				unix.Bind(p.fd, &unix.SockaddrInet6{Addr: from.As16()}))
		}
		if err != nil {
			unix.Close(p.fd)
			return fmt.Errorf("send from %s: %w", from, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Close closes the socket.
func (p *Echo) Close() { unix.Close(p.fd) }

// Ask sends an echo request of size bytes, including its IP header, and reports whether it was
// answered.
func (p *Echo) Ask(size int) (bool, error) {
	if err := p.send(size); err != nil {
		return false, err
	}
	return p.await(1)
}

// Burst sends several small requests at once and reports whether one was answered.
func (p *Echo) Burst(count int) (bool, error) {
	for range count {
		if err := p.send(Smallest); err != nil {
			return false, err
		}
	}
	return p.await(count)
}

// send sends an echo request of size bytes, including its IP header.
func (p *Echo) send(size int) error {
	header := 20
	if p.to.Is6() {
		header = 40
	}
	p.next++
	request := make([]byte, max(size-header, echoHeader))
	request[0] = echoRequest4
	binary.BigEndian.PutUint16(request[echoID:], p.id)
	binary.BigEndian.PutUint16(request[6:], p.next)
	var target unix.Sockaddr
	if p.to.Is6() {
		request[0] = echoRequest6 // the kernel writes the checksum
		target = &unix.SockaddrInet6{Addr: p.to.As16()}
	} else {
		binary.BigEndian.PutUint16(request[2:], checksum(request))
		target = &unix.SockaddrInet4{Addr: p.to.As4()}
	}
	if err := unix.Sendto(p.fd, request, 0, target); err != nil {
		return fmt.Errorf("send to %s: %w", p.to, err)
	}
	return nil
}

// await reports whether one of the last count requests is answered within answerWait.
func (p *Echo) await(count int) (bool, error) {
	answer := make([]byte, headersMax) // the kernel cuts off the rest of the packet
	for end := time.Now().Add(answerWait); ; {
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		wait := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return false, err
		}
		n, _, err := unix.Recvfrom(p.fd, answer, 0)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("no answer from %s: %w", p.to, err)
		}
		if p.answers(answer[:max(n, 0)], count) {
			return true, nil
		}
	}
}

// answers reports whether a packet is the reply to one of the last count requests.
func (p *Echo) answers(packet []byte, count int) bool {
	reply := byte(echoReply6)
	if p.to.Is4() { // the packet begins with its IP header
		if len(packet) < 20 {
			return false
		}
		packet, reply = packet[min(len(packet), int(packet[0]&15)*4):], echoReply4
	}
	return len(packet) >= echoHeader && packet[0] == reply &&
		binary.BigEndian.Uint16(packet[echoID:]) == p.id && p.next-binary.BigEndian.Uint16(packet[6:]) < uint16(count)
}

// checksum returns the checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
