package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// bucketHandle tells our token buckets from those of others: "6276:" in tc(8).
	bucketHandle = 'b'<<24 | 'v'<<16
	// ingressHandle is that of every qdisc of kind ingress or clsact: "ffff:".
	ingressHandle = 0xffff0000
	// ownPriority tells our filters from those of others.
	ownPriority = 'b'<<8 | 'v'
	// tick is the unit of times in struct tc_tbf_qopt, in nanoseconds: PSCHED_SHIFT in
	// net/pkt_sched.h.
	tick = 64
)

// bucket is a token bucket as sch_tbf has it.
type bucket struct {
	rate  uint64 // bytes in a second, of whole Ethernet frames
	fill  uint32 // how long it takes to fill, in ticks: its size as a time
	limit uint32 // bytes that may wait
}

// String has the bucket's size in bytes, as tc(8) does.
func (b bucket) String() string {
	if b.rate == 0 {
		return "none"
	}
	size := float64(b.rate) * float64(b.fill) * tick / float64(time.Second)
	return fmt.Sprintf("%d bit/s (burst %.0f bytes, limit %d bytes)", b.rate*8, size, b.limit)
}

// qdiscRequest is about a qdisc of a link.
func qdiscRequest(verb, flags int, l link, handle, parent uint32, kind string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.index), Handle: handle, Parent: parent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	return req
}

// addBucket puts a bucket before what leaves by a link, or changes the one of ours that is
// there. Another qdisc that somebody has put there goes if replace says so, and is EEXIST
// otherwise.
func (b *batch) addBucket(l link, t bucket, replace bool) {
	flags := unix.NLM_F_CREATE
	if replace {
		flags |= unix.NLM_F_REPLACE
	}
	req := qdiscRequest(unix.RTM_NEWQDISC, flags, l, bucketHandle, netlink.HANDLE_ROOT, "tbf")
	parms := nl.TcTbfQopt{Limit: t.limit, Buffer: t.fill}
	parms.Rate.Linklayer = nl.LINKLAYER_ETHERNET
	parms.Rate.Rate = uint32(min(t.rate, math.MaxUint32))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, parms.Serialize())
	if t.rate > math.MaxUint32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(t.rate))
	}
	req.AddData(options)
	b.add("limit the rate of "+l.name, req)
}

// bucket reads the bucket of ours that is before what leaves by a link; zero is none.
func (n *Namespace) bucket(l link) (t bucket, err error) {
	if !l.limited {
		return t, nil
	}
	// With NLM_F_ECHO the answer comes to us (qdisc_notify in net/sched/sch_api.c). A
	// listing would have those of all links.
	req := qdiscRequest(unix.RTM_GETQDISC, unix.NLM_F_ECHO, l, 0, netlink.HANDLE_ROOT, "tbf")
	messages, err := n.ask(unix.NETLINK_ROUTE, req)
	if absent(err) || errors.Is(err, unix.ENOENT) {
		return t, nil // gone since
	}
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("got %d answers", len(messages))
	}
	if err != nil {
		return t, fmt.Errorf("read the limit of %s: %w", l.name, err)
	}
	msg := nl.DeserializeTcMsg(messages[0])
	if msg.Handle != bucketHandle {
		return t, nil
	}
	options := attrs(messages[0][msg.Len():]).get(nl.TCA_OPTIONS)
	if parms := options.get(nl.TCA_TBF_PARMS); len(parms) >= nl.SizeofTcTbfQopt {
		is := nl.DeserializeTcTbfQopt(parms)
		t = bucket{uint64(is.Rate.Rate), is.Buffer, is.Limit}
	}
	if rate := options.get(nl.TCA_TBF_RATE64); len(rate) >= 8 {
		t.rate = binary.NativeEndian.Uint64(rate)
	}
	return t, nil
}

// addRedirect sends what comes by a link out by another one, as "tc filter ... u32 match
// u32 0 0 action mirred egress redirect" does.
func (b *batch) addRedirect(from, to link) {
	b.add("watch what comes by "+from.name, qdiscRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE, from, ingressHandle, netlink.HANDLE_INGRESS, "ingress"))
	b.deleteRedirect(from)
	all := nl.TcU32Sel{Flags: nl.TC_U32_TERMINAL, Nkeys: 1, Keys: make([]nl.TcU32Key, 1)}
	mirred := nl.TcMirred{TcGen: nl.TcGen{Action: int32(netlink.TC_ACT_STOLEN)}, Eaction: int32(netlink.TCA_EGRESS_REDIR), Ifindex: uint32(to.index)}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_U32_SEL, all.Serialize())
	action := options.AddRtAttr(nl.TCA_U32_ACT, nil).AddRtAttr(nl.TCA_ACT_TAB, nil)
	action.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated("mirred"))
	action.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(nl.TCA_MIRRED_PARMS, mirred.Serialize())
	req := redirectRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, from)
	req.AddData(options)
	b.add("redirect what comes by "+from.name+" to "+to.name, req)
}

func (b *batch) deleteRedirect(from link) {
	b.ensure("take the redirection from "+from.name, redirectRequest(unix.RTM_DELTFILTER, 0, from), unix.ENOENT)
}

func redirectRequest(verb, flags int, from link) *nl.NetlinkRequest {
	req := qdiscRequest(verb, flags, from, 0, ingressHandle, "u32")
	req.Data[0].(*nl.TcMsg).Info = ownPriority<<16 | uint32(everyProtocol())
	return req
}

// everyProtocol is ETH_P_ALL in network byte order, as filters have their protocol.
func everyProtocol() uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
}

// redirected is the index of the link that addRedirect sends to what comes by a link: 0 is
// one that is gone, and none -1. others says whether there are filters of others.
func (n *Namespace) redirected(l link) (to int, others bool, err error) {
	const none = -1
	h, err := n.library()
	if err != nil {
		return none, false, err
	}
	filters, err := dump(func() ([]netlink.Filter, error) {
		return h.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, ingressHandle)
	})
	if err != nil {
		return none, false, fmt.Errorf("list filters of %s: %w", l.name, err)
	}
	to = none
	for _, f := range filters {
		others = others || f.Attrs().Priority != ownPriority
		if u, ok := f.(*netlink.U32); ok && u.Priority == ownPriority && len(u.Actions) == 1 {
			if m, ok := u.Actions[0].(*netlink.MirredAction); ok {
				to = m.Ifindex
			}
		}
	}
	return to, others, nil
}

// unlimit takes what limitPort has made off a link that stays. The IFB is left.
func (n *Namespace) unlimit(b *batch, l link) error {
	bucket, err := n.bucket(l)
	if err != nil {
		return err
	}
	if bucket.rate != 0 {
		b.ensure("take the limit from "+l.name, qdiscRequest(unix.RTM_DELQDISC, 0, l, bucketHandle, netlink.HANDLE_ROOT, "tbf"), unix.ENOENT)
	}
	switch to, others, err := n.redirected(l); {
	case err != nil:
		return err
	case to >= 0 && others:
		b.deleteRedirect(l)
	case to >= 0:
		b.ensure("take the redirection from "+l.name, qdiscRequest(unix.RTM_DELQDISC, 0, l, ingressHandle, netlink.HANDLE_INGRESS, "ingress"), unix.ENOENT)
	}
	return nil
}
