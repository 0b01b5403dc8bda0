package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Attributes of flowtables: enum nft_flowtable_attributes, enum nft_flowtable_hook_attributes and enum
// nft_devices_attributes in linux/netfilter/nf_tables.h.
const (
	flowtableTable = 1 // NFTA_FLOWTABLE_TABLE
	flowtableName  = 2 // NFTA_FLOWTABLE_NAME
	flowtableHook  = 3 // NFTA_FLOWTABLE_HOOK

	flowtableHookNumber   = 1 // NFTA_FLOWTABLE_HOOK_NUM
	flowtableHookPriority = 2 // NFTA_FLOWTABLE_HOOK_PRIORITY
	flowtableHookDevices  = 3 // NFTA_FLOWTABLE_HOOK_DEVS

	deviceName = 1 // NFTA_DEVICE_NAME
)

// ErrNoFlowtables is returned on a kernel without flowtables.
var ErrNoFlowtables = errors.New("the kernel has no flowtables; use a kernel with CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD, or set the key to \"auto\"")

// AddFlowtable adds a flowtable with these devices. If the flowtable exists, AddFlowtable adds the
// devices to it (Linux 5.8). The flowtable forwards packets that belong to its flows and arrive on one
// of the devices. These packets skip the hooks from prerouting to postrouting.
func (c *Change) AddFlowtable(name string, devices []string) {
	c.add("add flowtable "+name, unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE, nl.NewRtAttr(flowtableName, nl.ZeroTerminated(name)), ingressOf(devices))
}

// DeleteFlowtableDevices deletes devices from a flowtable (Linux 5.8). The flowtable must have all of them.
func (c *Change) DeleteFlowtableDevices(name string, devices []string) {
	c.add("delete devices of flowtable "+name, unix.NFT_MSG_DELFLOWTABLE, 0, nl.NewRtAttr(flowtableName, nl.ZeroTerminated(name)), ingressOf(devices))
}

// ingressOf returns the hook of a flowtable on these devices.
func ingressOf(devices []string) *nl.RtAttr {
	const ingress, priority = 0, 0 // NF_NETDEV_INGRESS
	hook := nl.NewRtAttr(flowtableHook|unix.NLA_F_NESTED, nil)
	hook.AddRtAttr(flowtableHookNumber, number(ingress))
	hook.AddRtAttr(flowtableHookPriority, number(priority))
	list := hook.AddRtAttr(flowtableHookDevices|unix.NLA_F_NESTED, nil)
	for _, device := range devices {
		list.AddRtAttr(deviceName, nl.ZeroTerminated(device))
	}
	return hook
}

// DeleteFlowtable deletes a flowtable. No rule may refer to the flowtable any more.
func (c *Change) DeleteFlowtable(name string) {
	c.add("delete flowtable "+name, unix.NFT_MSG_DELFLOWTABLE, 0, nl.NewRtAttr(flowtableName, nl.ZeroTerminated(name)))
}

// FlowtableDevices returns the devices of a flowtable in our table of a family. The result exists is
// false if there is no such flowtable.
func FlowtableDevices(n *netns.Namespace, family int, name string) (devices []string, exists bool, err error) {
	// The request is a dump, because the answer to a request for one flowtable has room for about 150 devices only.
	req := Request(unix.NFT_MSG_GETFLOWTABLE, unix.NLM_F_DUMP, uint8(Family(family)), nl.NewRtAttr(flowtableTable, nl.ZeroTerminated(OwnTable)))
	err = netns.Repeat(func() error {
		devices, exists = nil, false
		return n.Each(unix.NETLINK_NETFILTER, req, func(answer []byte) bool {
			attrs := netns.Attrs(answer[nl.SizeofNfgenmsg:])
			if attrs.Text(flowtableName) != name {
				return true
			}
			exists = true
			attrs.In(flowtableHook, flowtableHookDevices).Each(func(kind uint16, value []byte) {
				if kind == deviceName {
					devices = append(devices, netns.Text(value, len(value)))
				}
			})
			return true
		})
	})
	if err != nil {
		return nil, false, fmt.Errorf("read flowtable %s: %w", name, err)
	}
	return devices, exists, nil
}

// CheckFlowtables returns ErrNoFlowtables if the kernel lacks flowtables or the expression that
// adds flows to them. It changes nothing, because it sends a transaction without the message that
// ends a transaction. The kernel then loads the modules that the transaction needs, reports all
// errors, and undoes the transaction (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
func CheckFlowtables(n *netns.Namespace) error {
	const name = "probe"
	t := &nftables.Table{Name: OwnTable, Family: nftables.TableFamilyIPv4}
	c := NewChange(t)
	c.AddTable()
	c.AddFlowtable(name, nil)
	c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	c.AddRule(Rule{Chain: name, Exprs: []expr.Any{&expr.FlowOffload{Name: name}}})
	err := n.Exchange(unix.NETLINK_NETFILTER, c.batch, batchFrame(unix.NFNL_MSG_BATCH_BEGIN), nil)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", ErrNoFlowtables, err)
	}
	return err
}
