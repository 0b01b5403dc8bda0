package ownrules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// ErrTablesGone is returned if the set for a new element does not exist any more, for instance after "nft flush
// ruleset".
var ErrTablesGone = errors.New("the nftables table bridgeveth was deleted meanwhile")

type element struct {
	family  int
	set     string
	key     []byte // each part of a concatenation is padded to a multiple of four bytes
	value   []byte // in a map of data, such as host ports
	chain   string // in a map of verdicts: the chain to which packets go
	comment string
}

// same reports whether two elements have the same key in the same set. A set has at most one element with a
// key.
func (e element) same(other element) bool {
	return e.family == other.family && e.set == other.set && bytes.Equal(e.key, other.key)
}

// findElement looks up an element by its key. It returns one element or none.
func findElement(n *netns.Namespace, family int, set string, key []byte) ([]element, error) {
	req := elementRequest(family, set, unix.NFT_MSG_GETSETELEM, 0)
	req.AddData(element{key: key}.attribute())
	messages, err := n.Ask(unix.NETLINK_NETFILTER, req)
	return readElements(family, set, messages, err)
}

// onePart is a size in bytes. A list of elements that is not longer has only one part, because the kernel begins
// another part only when 3,700 bytes are full (NLMSG_GOODSIZE in linux/netlink.h).
const onePart = 2 << 10

// listElements returns the elements of a set. A set that does not exist has no elements.
func listElements(n *netns.Namespace, family int, set string) ([]element, error) {
	ask := func() ([][]byte, error) {
		return n.Ask(unix.NETLINK_NETFILTER, elementRequest(family, set, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP))
	}
	messages, err := ask()
	// The kernel lists a large set in several parts. If another process deletes elements in between, the kernel
	// leaves out other elements (nf_tables_dump_set in net/netfilter/nf_tables_api.c), and does not set
	// NLM_F_DUMP_INTR. The generation of nf_tables tells whether this may have happened.
	if len(messages) > 1 || len(messages) == 1 && len(messages[0]) > onePart {
		err = nft.AtOneGeneration(n, func(seen uint32) (err error) {
			if messages, err = ask(); err != nil {
				return err
			}
			now, err := nft.Generation(n)
			if err == nil && now != seen {
				err = netlink.ErrDumpInterrupted
			}
			return err
		})
	}
	return readElements(family, set, messages, err)
}

// elementRequest returns a request about elements of a set. The caller adds the elements.
func elementRequest(family int, set string, message, flags int) *nl.NetlinkRequest {
	return nft.Request(message, flags, uint8(nft.Family(family)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(nft.OwnTable)), nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
}

func readElements(family int, set string, messages [][]byte, err error) (list []element, _ error) {
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read elements of nf_tables set %s: %w", set, err)
	}
	for _, m := range messages {
		netns.Attrs(m[nl.SizeofNfgenmsg:]).Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).Each(func(_ uint16, b []byte) {
			e := netns.Attrs(b)
			comment, _ := nft.UserText(e.Get(unix.NFTA_SET_ELEM_USERDATA), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
			list = append(list, element{
				family: family, set: set, comment: comment,
				key:   e.In(unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE),
				value: e.In(unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE),
				chain: e.In(unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT).Text(unix.NFTA_VERDICT_CHAIN),
			})
		})
	}
	return list, nil
}

// addElements adds all elements or none, in one transaction.
func addElements(n *netns.Namespace, list []element) error {
	return changeElements(n, nft.AnyGeneration, nil, list)
}

func deleteElements(n *netns.Namespace, list []element) error {
	return changeElements(n, nft.AnyGeneration, list, nil)
}

// changeElements deletes the elements in the parameter gone and adds the elements in the parameter added, in
// one transaction. The error is ERESTART if nf_tables has changed since the generation in the parameter seen.
// The error is ErrTablesGone if a set for the new elements does not exist.
func changeElements(n *netns.Namespace, seen uint32, gone, added []element) error {
	err := nft.Transact(n, elementBatch(gone, added), seen)
	if errors.Is(err, unix.ENOENT) && len(added) > 0 {
		err = fmt.Errorf("%w: %w", ErrTablesGone, err)
	}
	return err
}

func elementBatch(gone, added []element) (b netns.Batch) {
	for _, e := range gone {
		req := elementRequest(e.family, e.set, unix.NFT_MSG_DELSETELEM, 0)
		req.AddData(element{key: e.key}.attribute())
		b.Add("element of "+e.set, req)
	}
	for _, e := range added {
		req := elementRequest(e.family, e.set, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
		req.AddData(e.attribute())
		b.Add("element of "+e.set, req)
	}
	return b
}

func (e element) attribute() *nl.RtAttr {
	nested := func(in *nl.RtAttr, kind int) *nl.RtAttr { return in.AddRtAttr(kind|unix.NLA_F_NESTED, nil) }
	list := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, nil)
	a := nested(list, unix.NFTA_LIST_ELEM)
	nested(a, unix.NFTA_SET_ELEM_KEY).AddRtAttr(unix.NFTA_DATA_VALUE, e.key)
	if len(e.value) > 0 {
		nested(a, unix.NFTA_SET_ELEM_DATA).AddRtAttr(unix.NFTA_DATA_VALUE, e.value)
	}
	if e.chain != "" {
		verdict := nested(nested(a, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
		jump := int32(unix.NFT_GOTO)
		verdict.AddRtAttr(unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(jump)))
		verdict.AddRtAttr(unix.NFTA_VERDICT_CHAIN, nl.ZeroTerminated(e.chain))
	}
	if e.comment != "" {
		a.AddRtAttr(unix.NFTA_SET_ELEM_USERDATA, userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.comment))
	}
	return list
}

// maxComment is the longest comment of an element, in bytes. The kernel stores the length of user data, which
// includes a header and the final zero, in one byte (struct nft_set_ext_tmpl in net/netfilter/nf_tables.h). It
// refuses a comment that is one byte longer, and silently drops longer comments.
const maxComment = 251

// PortOwner is the owner of a set element, as the comment of the element names it: an attachment and its bridge
// port.
type PortOwner struct {
	Port string // name of the attachment's bridge port; each attachment has its own
	plan.Attachment
}

// PortComment returns the comment for the set elements of an attachment, cut to maxComment bytes.
func PortComment(a plan.Attachment) string {
	text := a.Port() + " " + a.String()
	return text[:min(len(text), maxComment)]
}

// ParseOwner parses a comment that PortComment has made.
func ParseOwner(comment string) (o PortOwner) {
	port, text, _ := strings.Cut(comment, " ")
	parts := append(strings.Split(text, "/"), "?", "?", "?")
	return PortOwner{port, plan.Attachment{Network: parts[1], Container: parts[2], Interface: parts[3]}}
}

// Unlisted returns a function that reports whether an owner belongs to this CNI network, but is none of the
// valid attachments.
func Unlisted(network string, valid []plan.Attachment) func(PortOwner) bool {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[a.Port()] = true
	}
	return func(o PortOwner) bool { return o.Network == network && !keep[o.Port] }
}
