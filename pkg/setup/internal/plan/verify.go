package plan

// MTUOn is the MTU of both ends, on a bridge with the given one.
func (p *Port) MTUOn(bridge int) int {
	if p.MTU != 0 {
		return p.MTU
	}
	return bridge
}
