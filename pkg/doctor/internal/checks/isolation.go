package checks

// CheckIsolation checks whether the bridge forwards packets between the two ports.
func (p *Path) CheckIsolation() {
	if p.A.Bridge == p.B.Bridge && p.ports[p.A.Port].Isolated && p.ports[p.B.Port].Isolated {
		p.Advise("isolation", `set "portIsolation" to false, or "ingressPolicy" to another than "isolated", and make both containers again`,
			"ports %s and %s are isolated: the bridge lets neither send to the other", p.A.Port, p.B.Port)
	}
}
