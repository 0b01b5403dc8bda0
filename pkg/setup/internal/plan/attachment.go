package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"net/netip"
	"strings"
)

const (
	// Owner stands first in the alias of every link that we make.
	Owner = "bridgeveth"
	// PortPrefix is what NetworkManager, dhcpcd and others know to leave alone.
	PortPrefix = "veth"
	// portMACPrefix is the highest first byte of an address that is local and of one interface.
	portMACPrefix = 0xfe
	// portDigits fill IFNAMSIZ-1 = 15 letters; 11 digits of base 32 are 55 bits.
	portDigits = 11
	// maxAlias is IFALIASZ-1 in linux/if.h, in bytes.
	maxAlias = 255
	// MaxNetwork is how long a network's name may be, in bytes: it stands in the
	// aliases of ports as a whole.
	MaxNetwork = 200
)

// Attachment names one interface of one container on one network. No part
// holds a slash: CNI specification 1.1.0, "Parameters".
type Attachment struct{ Network, Container, Interface string }

// String is the attachment in clear, as in the alias of its port.
func (a Attachment) String() string {
	return strings.Join([]string{Owner, a.Network, a.Container, a.Interface}, "/")
}

// Alias is String, with as much of the container's name as fits.
func (a Attachment) Alias() string {
	if over := len(a.String()) - maxAlias; over > 0 {
		a.Container = a.Container[:max(0, len(a.Container)-over)]
	}
	return a.String()
}

// ParseAttachment is the inverse of String. ok is false for any other alias.
func ParseAttachment(alias string) (a Attachment, ok bool) {
	f := strings.Split(alias, "/")
	if len(f) != 4 || f[0] != Owner || strings.ContainsAny(alias, "\n\t") { // which no name in CNI has
		return Attachment{}, false
	}
	return Attachment{f[1], f[2], f[3]}, true
}

// Port is the name of the host end of the attachment's veth pair. It depends on
// the attachment alone, so that DEL finds the port with nothing else to go by.
func (a Attachment) Port() string {
	digest := a.digest()
	return PortPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:])[:portDigits])
}

func (a Attachment) digest() [sha256.Size]byte { return sha256.Sum256([]byte(a.String())) }

// IsPort says whether name has the form of Port's.
func IsPort(name string) bool {
	digits, found := strings.CutPrefix(name, PortPrefix)
	return found && len(digits) == portDigits &&
		strings.Trim(digits, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// PortMAC is the link-layer address of the port. A bridge without an address of its own takes the
// lowest one of its ports (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). No network
// card has one as high as this, so that a bridge with a card keeps the card's.
func (a Attachment) PortMAC() net.HardwareAddr {
	digest := a.digest()
	return append(net.HardwareAddr{portMACPrefix}, digest[:5]...)
}

// FormerMAC is the portMAC of older builds, which tells the ports that they have attached.
func (a Attachment) FormerMAC() net.HardwareAddr { return DigestMAC(a.digest()) }

// containerMAC is the link-layer address of the container's end. It follows from
// the first IP address, where there is one: neighbours that still remember the
// address's last holder then send to the right one.
func (a Attachment) containerMAC(addresses []netip.Prefix) net.HardwareAddr {
	mac := net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 0} // locally administered
	digest := a.digest()
	id := digest[:4]
	if len(addresses) > 0 {
		if ip := addresses[0].Addr(); ip.Is4() {
			id = ip.AsSlice()
		} else {
			sum := sha256.Sum256(ip.AsSlice())
			id = sum[:4]
		}
	}
	copy(mac[2:], id)
	return mac
}

const (
	// IFBPrefix begins the name of the link that the egress of a port goes by; the digits of the port follow.
	IFBPrefix = "ifb"
)

// IFBOf is the name of the link that what a container sends goes by, by that of its port.
// An IFB is a link whose transmission puts packets back where they came from, so that a
// qdisc can hold them: what arrives meets no other.
func IFBOf(port string) string { return IFBPrefix + strings.TrimPrefix(port, PortPrefix) }

// DigestMAC is such an address that follows from a digest.
func DigestMAC(digest [sha256.Size]byte) net.HardwareAddr {
	return append(net.HardwareAddr{0x02}, digest[:5]...)
}
