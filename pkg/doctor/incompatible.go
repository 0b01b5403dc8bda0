package doctor

import (
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// IncompatibleChains reports the chains that iptables refuses to change. bridgeveth writes its
// rules without iptables, so these chains do not affect it. Docker and other programs that run
// iptables cannot write their rules into such chains. The returned list has one report, or is empty
// if there are no such chains.
func (d *Doctor) IncompatibleChains() ([]*Report, error) {
	r := &Report{From: "iptables-nft"}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		chains, err := d.Host.IncompatibleChains(family)
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			r.Note("chain "+c.String(), `iptables refuses to change this chain ("incompatible, use 'nft' tool"), because nft has loaded a saved ruleset. `+
				"Run %s, then have the owner of the chain write its rules again, for example by a restart of Docker", report.Command("nft flush chain %s %s %s", c.Family, c.Table, c.Name))
		}
	}
	return nonEmpty(r), nil
}
