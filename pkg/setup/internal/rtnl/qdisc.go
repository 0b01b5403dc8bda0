package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

const (
	// bucketHandle is the handle of our token buckets; tc(8) prints it as "6276:".
	bucketHandle = 'b'<<24 | 'v'<<16
	// IngressHandle is the handle of every ingress and clsact qdisc; tc(8) prints it as "ffff:".
	IngressHandle = 0xffff0000
	// OwnPriority is the priority (tc(8), "prio") of our filters. It distinguishes them from
	// filters of other programs.
	OwnPriority = 'b'<<8 | 'v'
	// Tick is the unit of times in struct tc_tbf_qopt, in nanoseconds (PSCHED_SHIFT in
	// net/pkt_sched.h).
	Tick = 64
)

// Bucket holds the parameters of a token bucket (tc-tbf(8)).
type Bucket struct {
	Rate  uint64 // bytes per second, of whole Ethernet frames
	Fill  uint32 // the size of the bucket, given as the time to fill it at Rate, in ticks
	Limit uint32 // bytes that may wait for tokens
}

// String returns the parameters as tc(8) prints them, with the size of the bucket in bytes.
func (b Bucket) String() string {
	if b.Rate == 0 {
		return "none"
	}
	size := float64(b.Rate) * float64(b.Fill) * Tick / float64(time.Second)
	return fmt.Sprintf("%d bit/s (burst %.0f bytes, limit %d bytes)", b.Rate*8, size, b.Limit)
}

// QdiscRequest returns a request about a qdisc of a link.
func QdiscRequest(verb, flags int, l Link, handle, parent uint32, kind string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Index), Handle: handle, Parent: parent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	return req
}

// AddBucket adds a token bucket for packets that leave through a link, or changes our existing
// bucket. If the link has a root qdisc of another program, the parameter replace decides: with
// true, the bucket replaces that qdisc. With false, the request fails with EEXIST.
func AddBucket(b *netns.Batch, l Link, t Bucket, replace bool) {
	flags := unix.NLM_F_CREATE
	if replace {
		flags |= unix.NLM_F_REPLACE
	}
	req := QdiscRequest(unix.RTM_NEWQDISC, flags, l, bucketHandle, netlink.HANDLE_ROOT, "tbf")
	parms := nl.TcTbfQopt{Limit: t.Limit, Buffer: t.Fill}
	parms.Rate.Linklayer = nl.LINKLAYER_ETHERNET
	parms.Rate.Rate = uint32(min(t.Rate, math.MaxUint32))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, parms.Serialize())
	if t.Rate > math.MaxUint32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(t.Rate))
	}
	req.AddData(options)
	b.Add("limit the rate of "+l.Name, req)
}

// ReadBucket returns the parameters of our token bucket on a link. It returns the zero Bucket if
// the link has no bucket of ours.
func ReadBucket(n *netns.Namespace, l Link) (t Bucket, err error) {
	if !l.limited {
		return t, nil
	}
	// NLM_F_ECHO makes the kernel send the qdisc of this link to this socket (qdisc_notify in
	// net/sched/sch_api.c). A listing would have the qdiscs of all links.
	req := QdiscRequest(unix.RTM_GETQDISC, unix.NLM_F_ECHO, l, 0, netlink.HANDLE_ROOT, "tbf")
	messages, err := n.Ask(unix.NETLINK_ROUTE, req)
	if Absent(err) || errors.Is(err, unix.ENOENT) {
		return t, nil // the link was deleted meanwhile
	}
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("got %d answers", len(messages))
	}
	if err != nil {
		return t, fmt.Errorf("read the limit of %s: %w", l.Name, err)
	}
	msg := nl.DeserializeTcMsg(messages[0])
	if msg.Handle != bucketHandle {
		return t, nil
	}
	options := netns.Attrs(messages[0][msg.Len():]).Get(nl.TCA_OPTIONS)
	if parms := options.Get(nl.TCA_TBF_PARMS); len(parms) >= nl.SizeofTcTbfQopt {
		p := nl.DeserializeTcTbfQopt(parms)
		t = Bucket{uint64(p.Rate.Rate), p.Buffer, p.Limit}
	}
	if rate := options.Get(nl.TCA_TBF_RATE64); len(rate) >= 8 {
		t.Rate = binary.NativeEndian.Uint64(rate)
	}
	return t, nil
}

// AddRedirect adds a filter that redirects the packets that arrive on one link to the egress of
// another link, as "tc filter ... u32 match u32 0 0 action mirred egress redirect" does.
func AddRedirect(b *netns.Batch, from, to Link) {
	b.Add("add ingress qdisc to "+from.Name, QdiscRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE, from, IngressHandle, netlink.HANDLE_INGRESS, "ingress"))
	deleteRedirect(b, from)
	all := nl.TcU32Sel{Flags: nl.TC_U32_TERMINAL, Nkeys: 1, Keys: make([]nl.TcU32Key, 1)}
	mirred := nl.TcMirred{TcGen: nl.TcGen{Action: int32(netlink.TC_ACT_STOLEN)}, Eaction: int32(netlink.TCA_EGRESS_REDIR), Ifindex: uint32(to.Index)}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_U32_SEL, all.Serialize())
	action := options.AddRtAttr(nl.TCA_U32_ACT, nil).AddRtAttr(nl.TCA_ACT_TAB, nil)
	action.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated("mirred"))
	action.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(nl.TCA_MIRRED_PARMS, mirred.Serialize())
	req := redirectRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, from)
	req.AddData(options)
	b.Add("redirect packets of "+from.Name+" to "+to.Name, req)
}

func deleteRedirect(b *netns.Batch, from Link) {
	b.Ensure("delete redirection of "+from.Name, redirectRequest(unix.RTM_DELTFILTER, 0, from), unix.ENOENT)
}

func redirectRequest(verb, flags int, from Link) *nl.NetlinkRequest {
	req := QdiscRequest(verb, flags, from, 0, IngressHandle, "u32")
	req.Data[0].(*nl.TcMsg).Info = OwnPriority<<16 | uint32(EveryProtocol())
	return req
}

// EveryProtocol returns ETH_P_ALL in network byte order. The kernel expects this byte order in a
// filter's protocol.
func EveryProtocol() uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
}

// RedirectTarget returns the index of the link that receives the packets of link l after
// AddRedirect. The index is 0 if the target link was deleted, and -1 if there is no redirection.
// The result others is true if l has filters of other programs.
func RedirectTarget(n *netns.Namespace, l Link) (to int, others bool, err error) {
	const none = -1
	h, err := n.Library()
	if err != nil {
		return none, false, err
	}
	filters, err := netns.Dump(func() ([]netlink.Filter, error) {
		return h.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}, IngressHandle)
	})
	if err != nil {
		return none, false, fmt.Errorf("list filters of %s: %w", l.Name, err)
	}
	to = none
	for _, f := range filters {
		others = others || f.Attrs().Priority != OwnPriority
		if u, ok := f.(*netlink.U32); ok && u.Priority == OwnPriority && len(u.Actions) == 1 {
			if m, ok := u.Actions[0].(*netlink.MirredAction); ok {
				to = m.Ifindex
			}
		}
	}
	return to, others, nil
}

// RemoveLimits adds to the batch requests that delete our token bucket and our redirection from a
// link. It does not delete the link or its IFB.
func RemoveLimits(n *netns.Namespace, b *netns.Batch, l Link) error {
	bucket, err := ReadBucket(n, l)
	if err != nil {
		return err
	}
	if bucket.Rate != 0 {
		b.Ensure("delete bandwidth limit of "+l.Name, QdiscRequest(unix.RTM_DELQDISC, 0, l, bucketHandle, netlink.HANDLE_ROOT, "tbf"), unix.ENOENT)
	}
	switch to, others, err := RedirectTarget(n, l); {
	case err != nil:
		return err
	case to >= 0 && others:
		deleteRedirect(b, l)
	case to >= 0:
		b.Ensure("delete redirection of "+l.Name, QdiscRequest(unix.RTM_DELQDISC, 0, l, IngressHandle, netlink.HANDLE_INGRESS, "ingress"), unix.ENOENT)
	}
	return nil
}
