package localnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// Sysctl is the path of the sysctl that lets packets from 127.0.0.0/8 leave through a link, and packets to
// 127.0.0.0/8 arrive on it.
const Sysctl = "ipv4/conf/%s/route_localnet"

// Mark is the bit in a packet's mark that identifies a reply to the host's loopback. Package ownrules sets it.
const Mark = 0x1000

// Offsets with a special meaning in classic BPF: a load at such an offset reads a property of the frame instead
// of its bytes. They are SKF_AD_OFF and the numbers after it in linux/filter.h.
const (
	frameProtocol = 1<<32 - 0x1000 // after the MAC header, or after the VLAN tag that the kernel has removed
	frameMark     = 1<<32 - 0x1000 + 20
	frameVLANTag  = 1<<32 - 0x1000 + 44
)

// guard is the loopback guard as a program of classic BPF. It drops frames to 127.0.0.0/8, unless they have
// Mark. This includes frames with a VLAN tag, because the kernel removes one tag before the filter runs. The
// program also drops each frame that has a tag of VLAN 0 and then a second tag: the kernel removes the second
// tag only after the filter (__netif_receive_skb_core in net/core/dev.c).
var guard = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: frameProtocol},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jt: 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_8021Q, Jt: 5},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_8021AD, Jt: 4, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetHeader + destination},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 127, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: frameMark},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: Mark, Jt: 2, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: frameVLANTag},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0xfff, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}, // TC_ACT_UNSPEC: the filters that follow decide
	{Code: unix.BPF_RET | unix.BPF_K, K: uint32(netlink.TC_ACT_SHOT)},
}

const (
	ethernetHeader = 14 // length in bytes, ETH_HLEN in linux/if_ether.h
	destination    = 16 // offset of the destination address in an IPv4 header, RFC 791, section 3.1
)

// Attributes and a flag of the classifier "bpf" in linux/pkt_cls.h, and the parents and the handle of the
// filter.
const (
	bpfOpsLen      = 4 // TCA_BPF_OPS_LEN
	bpfOps         = 5 // TCA_BPF_OPS
	bpfFlags       = 8 // TCA_BPF_FLAGS
	bpfActDirect   = 1 // TCA_BPF_FLAG_ACT_DIRECT: the program returns the verdict
	clsactArriving = netlink.HANDLE_MIN_INGRESS
	clsactLeaving  = netlink.HANDLE_MIN_EGRESS
	guardTag       = 1 // handle of the filter; a second request with this handle replaces the filter
)

// Missing compares each link of the network (the bridge and its VLAN link) with the plan. It returns a
// difference for each missing sysctl and for each missing loopback guard.
func Missing(n *netns.Namespace, net *plan.Network, links []rtnl.Link) (missing []plan.Difference, err error) {
	if !slices.ContainsFunc(net.HostPorts, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return nil, nil
	}
	for i, name := range net.Links() {
		guarded := false
		if links[i].Index != 0 {
			if guarded, _, err = filters(n, links[i], clsactArriving); err != nil {
				return nil, err
			}
		}
		if !guarded {
			missing = append(missing, plan.Difference{What: "guard of 127.0.0.0/8 on " + name, Restore: func() error { return addGuard(n, name) }, Newer: true})
		}
		if !links[i].Localnet {
			key := fmt.Sprintf(Sysctl, name)
			missing = append(missing, plan.SysctlDifference(key, "1", func() error { return n.SetSysctl(key, "1") }))
		}
	}
	return missing, nil
}

// filters reports whether a link has the loopback guard (guarded), and whether it has filters of other programs
// (others). The parameter parent selects the filters: clsactArriving for arriving packets, clsactLeaving for
// leaving packets.
func filters(n *netns.Namespace, l rtnl.Link, parent uint32) (guarded, others bool, err error) {
	messages, err := netns.Dump(func() ([][]byte, error) {
		return n.Ask(unix.NETLINK_ROUTE, filterRequest(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, l, parent, 0))
	})
	if err != nil {
		return false, false, fmt.Errorf("list filters of %s: %w", l.Name, err)
	}
	for _, m := range messages {
		msg := nl.DeserializeTcMsg(m)
		is := netns.Attrs(m[msg.Len():])
		options := is.Get(nl.TCA_OPTIONS)
		switch {
		case msg.Info>>16 != rtnl.OwnPriority || is.Text(nl.TCA_KIND) != "bpf":
			others = true
		case bytes.Equal(options.Get(bpfOps), bytecode(guard)) && options.Integer(bpfFlags)&bpfActDirect != 0:
			guarded = true
		}
	}
	return guarded, others, nil
}

// addGuard adds the loopback guard to a link, or replaces the guard. It keeps the qdisc and the filters of other
// programs.
func addGuard(n *netns.Namespace, name string) error {
	l, err := rtnl.ByName(n, name)
	if err != nil {
		return err
	}
	var b netns.Batch
	// The request fails with EINVAL if the link has a qdisc "ingress". This is no error, because this qdisc can
	// hold the filter too.
	b.Ensure("add qdisc clsact to "+name, rtnl.QdiscRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE, l, rtnl.IngressHandle, netlink.HANDLE_CLSACT, "clsact"), unix.EINVAL)
	req := filterRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, l, clsactArriving, guardTag)
	program := bytecode(guard)
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(bpfOpsLen, nl.Uint16Attr(uint16(len(guard))))
	options.AddRtAttr(bpfOps, program)
	options.AddRtAttr(bpfFlags, nl.Uint32Attr(bpfActDirect))
	req.AddData(options)
	b.Add("guard 127.0.0.0/8 on "+name+" by a tc filter (needs kernel options NET_SCH_INGRESS, NET_CLS_BPF)", req)
	return n.Send(b)
}

// Remove resets the sysctl of a link and then deletes the loopback guard. It deletes the qdisc too, unless the
// qdisc has filters of other programs. Remove is for a link that continues to exist.
func Remove(n *netns.Namespace, l rtnl.Link) error {
	guarded, others, err := filters(n, l, clsactArriving)
	if err != nil || !guarded {
		return err
	}
	if !others {
		if _, others, err = filters(n, l, clsactLeaving); err != nil {
			return err
		}
	}
	err = n.SetSysctl(fmt.Sprintf(Sysctl, l.Name), "0")
	if errors.Is(err, unix.EROFS) {
		return nil // /proc/sys is read-only, so another program has set the sysctl; the guard must stay
	}
	if err != nil {
		return err
	}
	var b netns.Batch
	if others {
		b.Ensure("delete the guard of 127.0.0.0/8 from "+l.Name, filterRequest(unix.RTM_DELTFILTER, 0, l, clsactArriving, guardTag), unix.ENOENT)
	} else {
		b.Ensure("delete the guard of 127.0.0.0/8 from "+l.Name, rtnl.QdiscRequest(unix.RTM_DELQDISC, 0, l, rtnl.IngressHandle, netlink.HANDLE_CLSACT, "clsact"), unix.ENOENT)
	}
	if err := n.Send(b); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: the qdisc is an "ingress" of another program
		return err
	}
	return nil
}

// filterRequest returns a request about the loopback guard of a link. With NLM_F_DUMP, the request lists all
// filters of the link.
func filterRequest(verb, flags int, l rtnl.Link, parent, handle uint32) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	msg := &nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Index), Handle: handle, Parent: parent}
	if req.AddData(msg); flags&unix.NLM_F_DUMP == 0 {
		msg.Info = rtnl.OwnPriority<<16 | uint32(rtnl.EveryProtocol())
		req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	}
	return req
}

func bytecode(program []unix.SockFilter) (b []byte) {
	for _, i := range program {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = binary.NativeEndian.AppendUint32(append(b, i.Jt, i.Jf), i.K)
	}
	return b
}
