package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"net/netip"
	"strings"
)

const (
	// Owner begins the alias of every link that we make.
	Owner = "bridgeveth"
	// PortPrefix begins the name of every port. NetworkManager, dhcpcd and others ignore links with
	// this prefix.
	PortPrefix = "veth"
	// portMACPrefix is the highest first byte of a locally administered unicast MAC address.
	portMACPrefix = 0xfe
	// portDigits is how many letters remain of IFNAMSIZ-1 = 15: 11 digits of base 32 are 55 bits.
	portDigits = 11
	// maxAlias is IFALIASZ-1 in linux/if.h, in bytes.
	maxAlias = 255
	// MaxNetwork is the greatest length of a network's name, in bytes. The alias of a port contains
	// the whole name.
	MaxNetwork = 200
)

// Attachment identifies one interface of one container on one network. No part contains a slash: CNI
// specification 1.1.0, "Parameters".
type Attachment struct{ Network, Container, Interface string }

// String returns the attachment as in the alias of its port: bridgeveth/NETWORK/CONTAINER/INTERFACE.
func (a Attachment) String() string {
	return strings.Join([]string{Owner, a.Network, a.Container, a.Interface}, "/")
}

// Alias returns String, with the container's name cut to the length that fits.
func (a Attachment) Alias() string {
	if over := len(a.String()) - maxAlias; over > 0 {
		a.Container = a.Container[:max(0, len(a.Container)-over)]
	}
	return a.String()
}

// ParseAttachment is the inverse of String. ok is false for every other alias.
func ParseAttachment(alias string) (a Attachment, ok bool) {
	f := strings.Split(alias, "/")
	if len(f) != 4 || f[0] != Owner || strings.ContainsAny(alias, "\n\t") { // no name in CNI has these
		return Attachment{}, false
	}
	return Attachment{f[1], f[2], f[3]}, true
}

// Port returns the name of the host end of the attachment's veth pair. The name depends on the
// attachment alone, so DEL finds the port without any record.
func (a Attachment) Port() string {
	digest := a.digest()
	return PortPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:])[:portDigits])
}

func (a Attachment) digest() [sha256.Size]byte { return sha256.Sum256([]byte(a.String())) }

// IsPort reports whether name has the form of the names that Port returns.
func IsPort(name string) bool {
	digits, found := strings.CutPrefix(name, PortPrefix)
	return found && len(digits) == portDigits &&
		strings.Trim(digits, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// PortMAC returns the MAC address of the port. A bridge without an assigned MAC address takes the
// lowest MAC address of its ports (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). Every
// network card has a lower one than our ports, so a bridge with a card keeps that of the card.
func (a Attachment) PortMAC() net.HardwareAddr {
	digest := a.digest()
	return append(net.HardwareAddr{portMACPrefix}, digest[:5]...)
}

// FormerMAC returns the MAC address that older builds gave the port. It identifies the ports that they
// attached.
func (a Attachment) FormerMAC() net.HardwareAddr { return DigestMAC(a.digest()) }

// containerMAC returns the MAC address of the container's end. It is derived from the first IP
// address, if there is one. A neighbour entry for the previous holder of the address is then correct
// for the new holder too.
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

// IFBPrefix begins the name of a port's IFB. The digits of the port's name follow.
const IFBPrefix = "ifb"

// IFBOf returns the name of the IFB of a port. An IFB (intermediate functional block) is a link with a
// queueing discipline for packets that arrive by another link. The kernel queues only packets that
// leave by a link.
func IFBOf(port string) string { return IFBPrefix + strings.TrimPrefix(port, PortPrefix) }

// DigestMAC returns a locally administered unicast MAC address that is derived from a digest.
func DigestMAC(digest [sha256.Size]byte) net.HardwareAddr {
	return append(net.HardwareAddr{0x02}, digest[:5]...)
}
