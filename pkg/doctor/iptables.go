package doctor

import (
	"golang.org/x/sys/unix"
)

// Incompatible returns a report on the chains of others that iptables refuses to change, nil where
// there is none. They keep no packet from arriving: our own rules need no iptables. But Docker, and
// whoever else runs iptables, cannot set theirs any more.
func (d *Doctor) Incompatible() (*Report, error) {
	r := &Report{From: "iptables-nft"}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		chains, err := d.Host.IncompatibleChains(family)
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			r.note("chain "+c.String(), `iptables refuses to change it ("incompatible, use 'nft' tool"): nft has loaded a saved ruleset. `+
				"Run %s, and have the owner of the chain write its rules again, such as by a restart of Docker", command("nft flush chain %s %s %s", c.Family, c.Table, c.Name))
		}
	}
	if len(r.Stations) == 0 {
		return nil, nil
	}
	return r, nil
}
