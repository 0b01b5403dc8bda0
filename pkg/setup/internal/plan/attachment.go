package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// Owner is the beginning of the alias of every link that we create.
	Owner = "bridgeveth"
	// PortPrefix is the beginning of the name of every port. NetworkManager, dhcpcd and other
	// programs ignore links with this prefix.
	PortPrefix = "veth"
	// portMACPrefix is the first byte of a port's MAC address. It is the highest first byte that a
	// locally administered unicast address can have (see PortMAC).
	portMACPrefix = 0xfe
	// portDigits is the number of base-32 digits after PortPrefix. The name of a link has at most
	// 15 characters (IFNAMSIZ-1). 11 digits hold 55 bits of a digest.
	portDigits = 11
	// maxAlias is the greatest length of a link's alias, in bytes: IFALIASZ-1 in linux/if.h.
	maxAlias = 255
	// MaxNetwork is the greatest length of a CNI network's name, in bytes. The alias of a port
	// contains the whole name.
	MaxNetwork = 200
)

// Attachment identifies one interface of one container on one CNI network. None of the three names
// contains a slash: CNI specification 1.1.0, "Parameters".
type Attachment struct{ Network, Container, Interface string }

// String returns the attachment in the form that the alias of its port has:
// bridgeveth/NETWORK/CONTAINER/INTERFACE.
func (a Attachment) String() string {
	return strings.Join([]string{Owner, a.Network, a.Container, a.Interface}, "/")
}

// Alias returns the alias of the port. It equals String, unless String is too long for an alias. In
// that case, Alias cuts the end of the container's name.
func (a Attachment) Alias() string {
	if over := len(a.String()) - maxAlias; over > 0 {
		a.Container = a.Container[:max(0, len(a.Container)-over)]
	}
	return a.String()
}

// ParseAttachment returns the attachment that is encoded in an alias. It is the inverse of String.
// ok is false if the alias does not have this form.
func ParseAttachment(alias string) (a Attachment, ok bool) {
	f := strings.Split(alias, "/")
	if len(f) != 4 || f[0] != Owner || strings.ContainsAny(alias, "\n\t") { // no name in CNI contains a line break or a tab
		return Attachment{}, false
	}
	return Attachment{f[1], f[2], f[3]}, true
}

// ErrNewer is returned if a later version of bridgeveth has made a link or a table. This
// version then changes nothing, because it does not know the later format.
var ErrNewer = errors.New("a later release of bridgeveth made it; use that release")

// CheckFormat returns ErrNewer if a later version of bridgeveth has written this alias. The aliases of
// this version have no number. Aliases of format 2 begin with "bridgeveth.2", and so on.
func CheckFormat(alias string) error {
	rest, found := strings.CutPrefix(alias, Owner+".")
	number, _, _ := strings.Cut(rest, "/")
	if format, err := strconv.Atoi(number); found && err == nil && format > 1 {
		return ErrNewer
	}
	return nil
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

// PortMAC returns the MAC address of the host end of the veth pair. Its first byte is the highest
// that is possible. A bridge without an assigned MAC address takes the lowest MAC address of its
// ports (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). Network cards have lower MAC
// addresses than our ports, so a bridge with a network card keeps the address of the card.
func (a Attachment) PortMAC() net.HardwareAddr {
	digest := a.digest()
	return append(net.HardwareAddr{portMACPrefix}, digest[:5]...)
}

// FormerMAC returns the MAC address that older versions of bridgeveth gave the port. A port with
// this address was attached by such a version.
func (a Attachment) FormerMAC() net.HardwareAddr { return DigestMAC(a.digest()) }

// containerMAC returns the MAC address of the container's end of the veth pair. It is derived from
// the first IP address of the container, if there is one. If a new container gets the IP address of
// an earlier container, it therefore gets the same MAC address, and old neighbour entries for the
// IP address are still correct.
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

// IFBPrefix is the beginning of the name of an IFB, the link for the bandwidth limit of a port (see
// IFBOf). The base-32 digits of the port's name follow.
const IFBPrefix = "ifb"

// IFBOf returns the name of the IFB of a port. An IFB (intermediate functional block) is a link to
// which a filter redirects packets that arrive on another link. A bandwidth limit for packets from
// a container needs an IFB, because the kernel queues only packets that leave through a link.
func IFBOf(port string) string { return IFBPrefix + strings.TrimPrefix(port, PortPrefix) }

// DigestMAC returns a locally administered unicast MAC address that is derived from a digest.
func DigestMAC(digest [sha256.Size]byte) net.HardwareAddr {
	return append(net.HardwareAddr{0x02}, digest[:5]...)
}
