package elements

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// ErrTablesGone is returned if the set for a new element does not exist any more, for instance after "nft flush
// ruleset".
var ErrTablesGone = errors.New("the nftables table bridgeveth was deleted meanwhile")

// Element is an element of a set or map in our table of a family.
type Element struct {
	Family  int
	Set     string
	Key     []byte // each part of a concatenation is padded to a multiple of four bytes
	Value   []byte // in a map of data, such as host ports
	Chain   string // in a map of verdicts: the chain to which packets go
	Comment string
}

// Same reports whether two elements have the same key in the same set. A set has at most one element with a
// key.
func (e Element) Same(other Element) bool {
	return e.Family == other.Family && e.Set == other.Set && bytes.Equal(e.Key, other.Key)
}

// Find looks up an element by its key. It returns one element or none.
func Find(n *netns.Namespace, family int, set string, key []byte) ([]Element, error) {
	req := request(family, set, unix.NFT_MSG_GETSETELEM, 0)
	req.AddData(Element{Key: key}.attribute())
	messages, err := n.Ask(unix.NETLINK_NETFILTER, req)
	return read(family, set, messages, err)
}

// onePart is a size in bytes. A list of elements that is not longer has only one part, because the kernel begins
// another part only when 3,700 bytes are full (NLMSG_GOODSIZE in linux/netlink.h).
const onePart = 2 << 10

// List returns the elements of a set. A set that does not exist has no elements.
func List(n *netns.Namespace, family int, set string) ([]Element, error) {
	ask := func() ([][]byte, error) {
		return n.Ask(unix.NETLINK_NETFILTER, request(family, set, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP))
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
	return read(family, set, messages, err)
}

// request returns a request about elements of a set. The caller adds the elements.
func request(family int, set string, message, flags int) *nl.NetlinkRequest {
	return nft.Request(message, flags, uint8(nft.Family(family)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(nft.OwnTable)), nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
}

func read(family int, set string, messages [][]byte, err error) (list []Element, _ error) {
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read elements of nf_tables set %s: %w", set, err)
	}
	for _, m := range messages {
		netns.Attrs(m[nl.SizeofNfgenmsg:]).Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).Each(func(_ uint16, b []byte) {
			e := netns.Attrs(b)
			comment, _ := nft.UserText(e.Get(unix.NFTA_SET_ELEM_USERDATA), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
			list = append(list, Element{
				Family: family, Set: set, Comment: comment,
				Key:   e.In(unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE),
				Value: e.In(unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE),
				Chain: e.In(unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT).Text(unix.NFTA_VERDICT_CHAIN),
			})
		})
	}
	return list, nil
}

// Add adds all elements or none, in one transaction.
func Add(n *netns.Namespace, list []Element) error {
	return Change(n, nft.AnyGeneration, nil, list)
}

// Change deletes the elements in the parameter gone and adds the elements in the parameter added, in
// one transaction. The error is ERESTART if nf_tables has changed since the generation in the parameter seen.
// The error is ErrTablesGone if a set for the new elements does not exist.
func Change(n *netns.Namespace, seen uint32, gone, added []Element) error {
	err := nft.Transact(n, Batch(gone, added), seen)
	if errors.Is(err, unix.ENOENT) && len(added) > 0 {
		err = fmt.Errorf("%w: %w", ErrTablesGone, err)
	}
	return err
}

// Batch returns the requests that delete the elements in the parameter gone and add the elements in the parameter
// added.
func Batch(gone, added []Element) (b netns.Batch) {
	for _, e := range gone {
		req := request(e.Family, e.Set, unix.NFT_MSG_DELSETELEM, 0)
		req.AddData(Element{Key: e.Key}.attribute())
		b.Add("element of "+e.Set, req)
	}
	for _, e := range added {
		req := request(e.Family, e.Set, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
		req.AddData(e.attribute())
		b.Add("element of "+e.Set, req)
	}
	return b
}

func (e Element) attribute() *nl.RtAttr {
	nested := func(in *nl.RtAttr, kind int) *nl.RtAttr { return in.AddRtAttr(kind|unix.NLA_F_NESTED, nil) }
	list := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, nil)
	a := nested(list, unix.NFTA_LIST_ELEM)
	nested(a, unix.NFTA_SET_ELEM_KEY).AddRtAttr(unix.NFTA_DATA_VALUE, e.Key)
	if len(e.Value) > 0 {
		nested(a, unix.NFTA_SET_ELEM_DATA).AddRtAttr(unix.NFTA_DATA_VALUE, e.Value)
	}
	if e.Chain != "" {
		verdict := nested(nested(a, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
		jump := int32(unix.NFT_GOTO)
		verdict.AddRtAttr(unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(jump)))
		verdict.AddRtAttr(unix.NFTA_VERDICT_CHAIN, nl.ZeroTerminated(e.Chain))
	}
	if e.Comment != "" {
		a.AddRtAttr(unix.NFTA_SET_ELEM_USERDATA, userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.Comment))
	}
	return list
}

// HasSet reports whether our table of a family has a set or map.
func HasSet(n *netns.Namespace, family int, name string) (bool, error) {
	return nft.Exists(n, unix.NFT_MSG_GETSET, family,
		nl.NewRtAttr(unix.NFTA_SET_TABLE, nl.ZeroTerminated(nft.OwnTable)), nl.NewRtAttr(unix.NFTA_SET_NAME, nl.ZeroTerminated(name)))
}
