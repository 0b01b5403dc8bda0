package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxComment is how long the comment of an element may be, in bytes:
// NFT_USERDATA_MAXLEN in linux/netfilter/nf_tables.h, less its header and its end.
const maxComment = 253

// portOwner is whose an element is, by its comment.
type portOwner struct {
	port string // on the bridge: it tells attachments apart
	Attachment
}

// portComment is what an attachment's elements are marked by: as much of it as fits.
func portComment(a Attachment) string {
	text := a.Port() + " " + a.String()
	return text[:min(len(text), maxComment)]
}

// parseOwner reads what portComment wrote.
func parseOwner(comment string) (o portOwner) {
	port, text, _ := strings.Cut(comment, " ")
	parts := append(strings.Split(text, "/"), "?", "?", "?")
	return portOwner{port, Attachment{parts[1], parts[2], parts[3]}}
}

// element is a host port in one of the maps of a family.
type element struct {
	family int
	set    string
	key    []byte // parts of four bytes each, or sixteen
	target []byte
	port   HostPort
	owner  portOwner // of one that was found
}

// elements lists where the host ports of a container belong: a port of any address in
// both families, as far as the container has an address of them.
func elements(ports []HostPort, addresses []netip.Prefix) (list []element) {
	first := map[int]netip.Addr{}
	for _, a := range addresses {
		if family := familyOf(a.Addr()); !first[family].IsValid() {
			first[family] = a.Addr()
		}
	}
	for _, p := range ports {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if p.Address.IsValid() && familyOf(p.Address) != family {
				continue
			}
			e := element{family: family, set: portsOfAny, port: p}
			if p.named() {
				e.set, e.key = portsOfOne, p.Address.AsSlice()
			}
			e.key = append(e.key, p.Protocol, 0, 0, 0)
			e.key = append(binary.BigEndian.AppendUint16(e.key, p.Port), 0, 0)
			if to := first[family]; to.IsValid() {
				e.target = append(binary.BigEndian.AppendUint16(to.AsSlice(), p.Container), 0, 0)
				list = append(list, e)
			}
		}
	}
	return list
}

// in is the set that an element belongs to.
func (e element) in() *nftables.Set {
	return &nftables.Set{Table: natTable(e.family), Name: e.set, IsMap: true, Concatenation: true}
}

// find looks up an element by its key: there is one or none.
func (n *Namespace) find(e element) ([]element, error) {
	req, err := n.elementRequest(e.family, e.set, 0)
	if err != nil {
		return nil, err
	}
	elems := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, nil)
	key := elems.AddRtAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, nil).AddRtAttr(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, nil)
	key.AddRtAttr(unix.NFTA_DATA_VALUE, e.key)
	req.AddData(elems)
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("look up host port %s: %w", e.port, err)
	}
	return readElements(e.family, e.set, messages), nil
}

// list lists the chosen elements of a map.
func (n *Namespace) list(family int, set string, chosen func(element) bool) ([]element, error) {
	messages, err := dump(func() ([][]byte, error) {
		req, err := n.elementRequest(family, set, unix.NLM_F_DUMP)
		if err != nil {
			return nil, err
		}
		return req.Execute(unix.NETLINK_NETFILTER, 0)
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list host ports: %w", err)
	}
	all := readElements(family, set, messages)
	return slices.DeleteFunc(all, func(e element) bool { return !chosen(e) }), nil
}

// elementRequest asks for elements of a map.
func (n *Namespace) elementRequest(family int, set string, flags int) (*nl.NetlinkRequest, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, flags)
	err := n.use(req, unix.NETLINK_NETFILTER)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(nftFamily(family)), Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(ownTable)))
	req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	return req, err
}

// published lists the chosen elements of all maps.
func (n *Namespace) published(chosen func(element) bool) (list []element, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, set := range []string{portsOfAny, portsOfOne} {
			found, err := n.list(family, set, chosen)
			if err != nil {
				return nil, err
			}
			list = append(list, found...)
		}
	}
	return list, nil
}

// readElements reads the elements in answers to NFT_MSG_GETSETELEM.
func readElements(family int, set string, messages [][]byte) (list []element) {
	for _, m := range messages {
		attrs := parseAttrs(m[nl.SizeofNfgenmsg:])
		eachAttr(attrs[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, b []byte) {
			e := parseAttrs(b)
			comment, _ := userdata.GetString(e[unix.NFTA_SET_ELEM_USERDATA], userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
			found := element{
				family: family, set: set, owner: parseOwner(comment),
				key:    parseAttrs(e[unix.NFTA_SET_ELEM_KEY])[unix.NFTA_DATA_VALUE],
				target: parseAttrs(e[unix.NFTA_SET_ELEM_DATA])[unix.NFTA_DATA_VALUE],
			}
			if found.readPort() {
				list = append(list, found)
			}
		})
	}
	return list
}

// readPort reads the host port out of the key and the target.
func (e *element) readPort() (ok bool) {
	address, rest := len(e.key)-8, len(e.target)-4
	if address < 0 || rest < 0 {
		return false
	}
	e.port.Address, _ = netip.AddrFromSlice(e.key[:address])
	e.port.Protocol = e.key[address]
	e.port.Port = binary.BigEndian.Uint16(e.key[address+4:])
	e.port.Container = binary.BigEndian.Uint16(e.target[rest:])
	return true
}
