package setup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// element is one of a set or map of our table.
type element struct {
	family  int
	set     string
	key     []byte // parts of four bytes each, or of a multiple of that
	value   []byte // of a map
	comment string
}

// element looks up an element by its key: there is one or none.
func (n *Namespace) element(family int, set string, key []byte) ([]element, error) {
	req := elementRequest(family, set, 0)
	list := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, nil)
	wanted := list.AddRtAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, nil).AddRtAttr(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, nil)
	wanted.AddRtAttr(unix.NFTA_DATA_VALUE, key)
	req.AddData(list)
	messages, err := n.ask(unix.NETLINK_NETFILTER, req)
	return readElements(family, set, messages, err)
}

// elements lists those of a set. One that does not exist has none.
func (n *Namespace) elements(family int, set string) ([]element, error) {
	messages, err := dump(func() ([][]byte, error) {
		return n.ask(unix.NETLINK_NETFILTER, elementRequest(family, set, unix.NLM_F_DUMP))
	})
	return readElements(family, set, messages, err)
}

// elementRequest asks for elements of a set.
func elementRequest(family int, set string, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(nftFamily(family)), Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(ownTable)))
	req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	return req
}

// readElements reads the answers to NFT_MSG_GETSETELEM.
func readElements(family int, set string, messages [][]byte, err error) (list []element, _ error) {
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read elements of nf_tables set %s: %w", set, err)
	}
	for _, m := range messages {
		attrs(m[nl.SizeofNfgenmsg:]).get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).each(func(_ uint16, b []byte) {
			e := attrs(b)
			comment, _ := userdata.GetString(e.get(unix.NFTA_SET_ELEM_USERDATA), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
			list = append(list, element{
				family: family, set: set, comment: comment,
				key:   e.in(unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE),
				value: e.in(unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE),
			})
		})
	}
	return list, nil
}

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
