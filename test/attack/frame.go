package attack

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// These are the broadcast MAC address and multicast MAC addresses.
var (
	everybody   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	bridgeGroup = net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0}    // IEEE 802.1D, table 7-10: spanning tree
	LLDPGroup   = net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0x0e} // the same table: LLDP
	allNodes    = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}       // ff02::1
)

// Ethernet returns an Ethernet frame.
func Ethernet(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(bytes.Clone(to), from...), kind), payload...)
}

// arpPacket returns an ARP packet: RFC 826. operation is 1 for a request, 2 for a reply.
func arpPacket(operation byte, mac net.HardwareAddr, ip netip.Addr, toMAC net.HardwareAddr, to netip.Addr) []byte {
	p := append([]byte{0, 1, 0x08, 0, 6, 4, 0, operation}, mac...)
	p = append(append(p, ip.AsSlice()...), toMAC...)
	return append(p, to.AsSlice()...)
}

// UDP4 returns an IPv4 packet with an empty UDP datagram.
func UDP4(from, to netip.Addr, sourcePort, port uint16) []byte {
	header := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	header = append(append(header, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(header[10:], Checksum(header))
	header = binary.BigEndian.AppendUint16(header, sourcePort)
	return append(binary.BigEndian.AppendUint16(header, port), 0, 8, 0, 0)
}

// icmp6 returns an IPv6 packet with an ICMPv6 message. The checksum in message must be zero,
// because icmp6 computes the checksum and fills it in.
func icmp6(from, to netip.Addr, message []byte) []byte {
	addresses := append(from.AsSlice(), to.AsSlice()...)
	pseudo := binary.BigEndian.AppendUint32(bytes.Clone(addresses), uint32(len(message)))
	pseudo = append(append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6), message...) // RFC 8200, section 8.1
	message = bytes.Clone(message)
	binary.BigEndian.PutUint16(message[2:], Checksum(pseudo))
	header := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(message)))
	header = append(append(header, unix.IPPROTO_ICMPV6, 255), addresses...)
	return append(header, message...)
}

// Checksum returns the Internet checksum of an even number of bytes (RFC 1071). The checksum field
// in these bytes must be zero.
func Checksum(header []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum&0xffff + sum>>16
	return ^uint16(sum + sum>>16)
}

// neighbourAdvertisement returns an ICMPv6 message that overrides neighbour entries for ip with
// mac: RFC 4861, section 4.4.
func neighbourAdvertisement(ip netip.Addr, mac net.HardwareAddr) []byte {
	m := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, ip.AsSlice()...)
	return append(append(m, 2, 1), mac...)
}

// routerAdvertisement returns an ICMPv6 message from a default router: RFC 4861, section 4.2.
func routerAdvertisement() []byte {
	return []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
}

// bpdu returns an LLC header and a configuration message of a bridge with the highest priority: IEEE
// 802.1D-1998, section 9.3.1.
func bpdu(mac net.HardwareAddr) []byte {
	id := append([]byte{0, 0}, mac...)
	m := append([]byte{0x42, 0x42, 0x03, 0, 0, 0, 0, 0}, id...)
	m = append(append(m, 0, 0, 0, 0), id...)            // cost of the path to the root
	return append(m, 0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0) // port, then times in 1/256 s
}

// linkLocalOf returns the link-local IPv6 address that is derived from a MAC address: RFC 4291,
// appendix A.
func linkLocalOf(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// MACOf returns the MAC address of a link.
func MACOf(t testing.TB, in *setup.Namespace, link string) (mac net.HardwareAddr) {
	t.Helper()
	err := in.Do(func() error {
		l, err := net.InterfaceByName(link)
		if err == nil {
			mac = l.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// neighbourMAC returns the MAC address of a neighbour entry.
func neighbourMAC(t testing.TB, in *setup.Namespace, link, address string) string {
	t.Helper()
	_, rest, _ := strings.Cut(setuptest.In(t, in, "ip", "neigh", "show", address, "dev", link), "lladdr ")
	mac, _, _ := strings.Cut(rest, " ")
	return mac
}

// FrameReader receives the frames of a link. The caller must call Close.
type FrameReader struct {
	t  testing.TB
	fd int
}

// ReadFrames returns a reader of the frames that arrive at a link.
func ReadFrames(t testing.TB, in *setup.Namespace, link string) FrameReader {
	t.Helper()
	return FrameReader{t, PacketSocket(t, in, link)}
}

// Has reports whether a frame has arrived for which the function match returns true.
func (r FrameReader) Has(match func(frame []byte) bool) bool {
	r.t.Helper()
	b := make([]byte, 2048)
	for {
		size, err := unix.Read(r.fd, b)
		if err != nil {
			if err != unix.EAGAIN {
				r.t.Fatal(err)
			}
			return false
		}
		if match(b[:size]) {
			return true
		}
	}
}

// Close ends the reader.
func (r FrameReader) Close() { _ = unix.Close(r.fd) } // nothing was written

// allProtocols is ETH_P_ALL in network byte order.
const allProtocols = unix.ETH_P_ALL << 8

// PacketSocket opens a socket for the frames of a link.
func PacketSocket(t testing.TB, in *setup.Namespace, name string) (fd int) {
	t.Helper()
	err := in.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, allProtocols); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: allProtocols})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
