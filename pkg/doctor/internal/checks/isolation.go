package checks

// CheckIsolation checks whether the bridge forwards packets between the ports of A and B.
func (p *Path) CheckIsolation() {
	if p.A.Bridge == p.B.Bridge && p.ports[p.A.Port].Isolated && p.ports[p.B.Port].Isolated {
		p.Advise("isolation", `set "portIsolation": false, or an "ingressPolicy" other than "isolated", and create both containers again`,
			"ports %s and %s are isolated, so the bridge forwards no packet between them", p.A.Port, p.B.Port)
	}
}
