package checks

import "github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"

// CheckPort checks a container's port, the host end of its veth pair: the port must be on its
// bridge, up, and forwarding.
func (p *Path) CheckPort(e *End) {
	station := "port of " + e.Name
	port, found := p.ports[e.Port]
	where := "no bridge"
	if port.Bridge != "" {
		where = "bridge " + port.Bridge
	}
	switch {
	case !found:
		p.Advise(station, "delete the container and create it again", "%s does not exist", e.Port)
	case e.Bridge == "":
		p.Advise(station, report.Command("ip link set %s master BRIDGE up", e.Port)+", with the bridge of its network",
			"%s is on %s, and neither a record nor a configuration of its network names the bridge where it belongs", e.Port, where).Root = true
	case port.Bridge != e.Bridge && !p.hasLink(e.Bridge):
		p.Note(station, "%s is on %s; bridge %s, where it belongs, does not exist", e.Port, where, e.Bridge)
	case port.Bridge != e.Bridge:
		p.Bad(station, e.rejoinCommand(), "%s is on %s; it belongs on %s", e.Port, where, e.Bridge).Root = true
	case !port.Up:
		p.Bad(station, report.Command("ip link set %s up", e.Port), "%s is down", e.Port).Root = true
	case !port.Forwarding:
		p.Note(station, "bridge %s does not forward packets of %s: the other end is down, or STP blocks the port", e.Bridge, e.Port)
	default:
		p.Good(station, "%s on bridge %s forwards packets", e.Port, e.Bridge)
	}
}

// rejoinCommand returns a command that adds the port to its bridge again. A port that leaves its
// bridge loses its settings as a bridge port, and only bvctl repair restores these settings. bvctl
// repair needs a record of ADD.
func (e *End) rejoinCommand() string {
	if e.Verify != nil {
		return "bvctl repair"
	}
	return report.Command("ip link set %s master %s up", e.Port, e.Bridge)
}
