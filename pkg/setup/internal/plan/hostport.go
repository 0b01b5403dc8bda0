package plan

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// HostPort publishes a port of a container on the host.
type HostPort struct {
	Protocol  uint8      // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Address   netip.Addr // of the host; 0.0.0.0 or :: is any of that family, and zero any of both
	Port      uint16     // of the host
	Container uint16     // the port of the container
}

// PortTakenError says that a host port is another attachment's.
type PortTakenError struct {
	HostPort
	Holder Attachment
}

// Error names the port and its holder.
func (e *PortTakenError) Error() string {
	return fmt.Sprintf("host port %s is taken by container %s, interface %s, of network %s", e.HostPort, e.Holder.Container, e.Holder.Interface, e.Holder.Network)
}

// String is the port as a person writes it: "tcp 192.0.2.1:8080".
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

// Named says whether the port is of a particular address.
func (h HostPort) Named() bool { return h.Address.IsValid() && !h.Address.IsUnspecified() }

func (h HostPort) protocol() string {
	names := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	return names[h.Protocol]
}
