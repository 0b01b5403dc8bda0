package checks

import (
	"bytes"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// checkFDB checks the forwarding database of a container's bridge. An entry for the container's MAC
// must name the container's port. If there is no entry, the bridge must flood frames to the port.
func (p *Path) checkFDB(e *End) {
	station := "forwarding database of " + e.Bridge
	inside, err := p.Link(e.Namespace, e.Interface)
	if err != nil {
		return // CheckInterface has reported this
	}
	mac := inside.Attrs().HardwareAddr
	bridge, err := p.Link(p.Host.Namespace, e.Bridge)
	if err != nil {
		return // CheckBridge has reported this
	}
	port, err := p.Link(p.Host.Namespace, e.Port)
	if err != nil {
		return // CheckPort has reported this
	}
	all, err := kernel.FDB(p.Host.Namespace)
	if err != nil {
		return
	}
	entries := slices.DeleteFunc(all, func(n kernel.FDBEntry) bool { return !bytes.Equal(n.MAC, mac) })
	known := slices.ContainsFunc(entries, func(n kernel.FDBEntry) bool { return n.Port == port.Attrs().Index })
	for _, n := range entries {
		other := kernel.LinkName(p.Host.Namespace, n.Port)
		if n.Bridge == bridge.Attrs().Index && n.Port != port.Attrs().Index && other != "" {
			p.Bad(station, report.Command("bridge fdb del %s dev %s master", mac, other), "packets for %s (MAC %s) go to port %s instead of %s", e.Name, mac, other, e.Port)
		}
	}
	if !known && !kernel.Floods(p.Host.Namespace, port) {
		p.Bad(station, report.Command("bridge link set dev %s flood on learning on", e.Port), "no entry for %s (MAC %s), and the bridge does not flood port %s, so no packet reaches the container", e.Name, mac, e.Port)
	}
}
