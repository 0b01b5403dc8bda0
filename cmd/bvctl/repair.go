package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
	"github.com/bridgeveth/bridgeveth/plugins/firewall"
	"github.com/bridgeveth/bridgeveth/plugins/portmap"
)

// newRepair returns "bvctl repair".
func newRepair(h *host) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "repair", Short: "Put back what the host has lost of what its containers need", Args: cobra.NoArgs,
		Long: `Put back what the host has lost of what its containers need: forwarding rules, masquerade,
gateways, host ports, filters, limits, the settings of ports. Containers keep running; what is
inside of them is left alone. What is in place stays as it is.

What a container was given is read from the folder where its runtime's libcni keeps it. Of
a container that is not there, only the network is looked at, by its configuration.

With --watch it goes on doing so: whenever rules of nf_tables change, whoever changes them,
and once in half a minute, since iptables-legacy and sysctls change in silence.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ns, err := setup.CurrentNamespace()
			if err != nil {
				return err
			}
			defer ns.Close()
			if watch {
				return h.watch(ns, cmd.OutOrStdout())
			}
			count, err := h.repair(ns, cmd.OutOrStdout())
			if count == 0 && err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was missing")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, whenever rules change")
	return cmd
}

const (
	watchQuiet = 300 * time.Millisecond // between the last change of rules and the repair
	watchMost  = time.Second            // between the first change and the repair, however many follow
	watchIdle  = 30 * time.Second       // between looks at what changes in silence
)

// watch repairs until it is killed.
func (h *host) watch(ns *setup.Namespace, w io.Writer) error {
	rules, err := ns.WatchRules()
	if err != nil {
		return err
	}
	defer rules.Close()
	for {
		if _, err := h.repair(ns, w); err != nil && !errors.Is(err, errUnhealthy) {
			complain(err) // it may be better the next time
		}
		if err := rules.Wait(watchQuiet, watchMost, watchIdle); err != nil {
			return err
		}
	}
}

// repair puts back what is missing, and says how much that was. It goes on after errors,
// which it says on standard error.
func (h *host) repair(ns *setup.Namespace, w io.Writer) (count int, err error) {
	records, err := h.records()
	if err != nil {
		return 0, err
	}
	failed := false
	report := func(of string, mended []string, err error) {
		for _, what := range mended {
			count++
			fmt.Fprintf(w, "%s: put back %s\n", of, what)
		}
		if err != nil {
			failed = true
			complain(fmt.Errorf("%s: %w", of, err))
		}
	}
	known := map[setup.Attachment]bool{}
	for _, r := range records {
		if !ns.HasPort(r.attachment()) {
			continue // of another plugin, or of a container that is gone
		}
		call, err := r.attached()
		if call == nil && err == nil {
			continue
		}
		var mended []string
		if err == nil {
			mended, err = r.repair(call)
		}
		known[r.attachment()] = true
		report(r.String(), mended, err)
	}
	unknown, err := h.networksBut(ns, known)
	if err != nil {
		return count, err
	}
	for _, n := range unknown {
		mended, err := ns.RepairNetwork(n.wanted)
		report("network "+n.name, mended, err)
	}
	if failed {
		err = errUnhealthy
	}
	return count, err
}

// repair puts back what an attachment lacks, by the call that has attached it. Where that is
// of bridge, portmap and firewall behind it are ours too.
func (r record) repair(call *skel.CmdArgs) (mended []string, err error) {
	mended, err = bridgeveth.Repair(call)
	if first, otherwise := r.command(bridgeveth.Reference); first == nil {
		return mended, errors.Join(err, otherwise)
	}
	for name, repair := range map[string]func(*skel.CmdArgs) ([]string, error){portmap.Name: portmap.Repair, firewall.Name: firewall.Repair} {
		call, failed := r.command(name)
		if call != nil && failed == nil {
			var more []string
			more, failed = repair(call)
			mended = append(mended, more...)
		}
		err = errors.Join(err, failed)
	}
	return mended, err
}

// needed is a network and what its containers need of the host.
type needed struct {
	name   string
	wanted *setup.Network
}

// networksBut lists what networks need for containers that have a port and are not among
// those known.
func (h *host) networksBut(ns *setup.Namespace, known map[setup.Attachment]bool) (list []needed, err error) {
	addresses := map[string][]bridgeveth.Address{} // by network
	err = h.withStores(func(s *ipam.Store) error {
		return filter{}.each(s, func(l ipam.Lease) {
			if a := attachmentOf(l); !known[a] && ns.HasPort(a) {
				addresses[l.Network] = append(addresses[l.Network], bridgeveth.Address{Prefix: l.Address, Gateway: l.Gateway})
			}
		})
	})
	for _, n := range h.networks() {
		if len(addresses[n.Name]) == 0 || n.Type != bridgeveth.Name && n.Type != bridgeveth.Reference {
			continue
		}
		wanted, wrong := n.wanted(addresses[n.Name])
		if wrong != nil {
			err = errors.Join(err, fmt.Errorf("network %s: %w", n.Name, wrong))
			continue
		}
		list = append(list, needed{n.Name, wanted})
	}
	return list, err
}
