package plan

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// HostPort is a TCP, UDP or SCTP port of the host that is redirected to a port of a container.
type HostPort struct {
	Protocol  uint8      // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Address   netip.Addr // of the host; 0.0.0.0 means all IPv4 addresses, :: all IPv6 addresses, the zero Addr all addresses
	Port      uint16     // port of the host
	Container uint16     // port of the container
}

// PortTakenError is returned if another attachment already has the host port.
type PortTakenError struct {
	HostPort
	Holder Attachment
}

// Error returns a message that names the host port and the attachment that has it.
func (e *PortTakenError) Error() string {
	return fmt.Sprintf("host port %s is taken by container %s, interface %s, of network %s", e.HostPort, e.Holder.Container, e.Holder.Interface, e.Holder.Network)
}

// String returns the host port with its protocol and address, such as "tcp 192.0.2.1:8080". The
// address of a host port on all addresses is "*".
func (h HostPort) String() string {
	address := "*"
	if h.Named() {
		address = h.Address.String()
		if h.Address.Is6() {
			address = "[" + address + "]"
		}
	}
	return h.protocol() + " " + address + ":" + strconv.Itoa(int(h.Port))
}

// Named reports whether the host port is published on a single address of the host.
func (h HostPort) Named() bool { return h.Address.IsValid() && !h.Address.IsUnspecified() }

func (h HostPort) protocol() string {
	names := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	return names[h.Protocol]
}
