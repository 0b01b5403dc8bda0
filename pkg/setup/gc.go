package setup

import (
	"errors"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// staleIFBs lists the IFBs of ports that are gone.
func staleIFBs(links []rtnl.Link, gone func(ownrules.PortOwner) bool) (names []string) {
	for _, l := range links {
		digits, found := strings.CutPrefix(l.Name, plan.IFBPrefix)
		if a, ours := plan.ParseAttachment(l.Alias); ours && found && gone(ownrules.PortOwner{Port: plan.PortPrefix + digits, Attachment: a}) {
			names = append(names, l.Name)
		}
	}
	return names
}

// Collect deletes the ports of a network's attachments that are not in valid, on whichever
// bridge they are, with the last of all the network, and those that a killed process has left
// on the bridge given. It goes on after errors.
func (n *Host) Collect(network, bridge string, valid []Attachment) error {
	gone := ownrules.Unlisted(network, valid)
	all, err := bridges.SettledLinks(n.Namespace)
	if err != nil {
		return err
	}
	byIndex := map[int]rtnl.Link{}
	for _, l := range all {
		byIndex[l.Index] = l
	}
	released := []string{bridge}
	var before netns.Batch
	var stale, given []string
	for _, l := range all {
		a, known := plan.ParseAttachment(l.Alias)
		on := byIndex[l.Master]
		if !known && on.Name == bridge {
			a.Network = network // as far as anybody can tell
		}
		if !l.Ours() || l.Port == "" || !gone(ownrules.PortOwner{Port: l.Port, Attachment: a}) {
			continue
		}
		released = append(released, on.Name)
		bridges.KeepMACWithout(&before, on, l)
		if l.Port == l.Name {
			stale = append(stale, l.Name)
		} else {
			given = append(given, l.Port)
		}
	}
	errs := []error{n.Send(before), rtnl.DeleteLinks(n.Namespace, append(stale, staleIFBs(all, gone)...))}
	for _, name := range given {
		_, err := n.removePort(name)
		errs = append(errs, err)
	}
	abandoned, err := ownrules.Published(n.Namespace, func(m ownrules.Mapping) bool { return gone(m.Owner) })
	errs = append(errs, err, ownrules.DeleteMappings(n.Namespace, abandoned))
	unguarded, err := ownrules.GuardedPorts(n.Namespace, gone)
	errs = append(errs, err)
	for _, o := range unguarded {
		errs = append(errs, ownrules.UnguardPort(n.Namespace, o.Port))
	}
	return errors.Join(append(errs, n.ReleaseNetwork(released...))...)
}
