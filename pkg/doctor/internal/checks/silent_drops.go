package checks

// CheckSilentDrops checks the causes of loss that leave no counter and no error: ARP off, wrong
// neighbour entries, a full table of neighbour entries, a port that the bridge does not flood,
// queueing disciplines, and pings that are ignored.
func (p *Path) CheckSilentDrops() {
	bridged := p.Local || p.Routed
	if bridged {
		p.checkARP(p.Host.Namespace, p.A.Bridge, nil)
	}
	for _, e := range p.Containers() {
		p.checkARP(e.Namespace, e.Interface, e)
		if bridged {
			p.checkHostNeighbour(e)
		}
		p.checkFDB(e)
		p.checkQdiscs(e.Namespace, e.Interface, e)
		p.checkQdiscs(p.Host.Namespace, e.Port, nil)
	}
	p.checkNodeNeighbour()
	p.checkNeighbourTable()
	switch {
	case p.Own:
		p.checkEcho(p.A.Namespace, p.A)
	case p.B.Namespace != nil:
		p.checkEcho(p.B.Namespace, p.B)
	case p.Local:
		p.checkEcho(p.Host.Namespace, nil)
	}
	if gateway := p.Unresolved(); p.Routed && p.Has(p.Host.Namespace, gateway) {
		p.CheckReturnPath(gateway, "") // a strict rp_filter drops ARP requests, too
	}
}
