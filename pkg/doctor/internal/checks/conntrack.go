package checks

import (
	"strconv"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckConntrack checks whether the conntrack table is full.
func (p *Path) CheckConntrack() {
	limit := kernel.Sysctl(p.Host.Namespace, "netfilter/nf_conntrack_max")
	if limit == "" {
		return // the kernel has no conntrack
	}
	used, _ := strconv.Atoi(kernel.Sysctl(p.Host.Namespace, "netfilter/nf_conntrack_count"))
	if most, _ := strconv.Atoi(limit); most > 0 && used >= most { // 0 means no limit
		p.Bad("conntrack", report.SetSysctl("netfilter/nf_conntrack_max", strconv.Itoa(2*most)), "the table is full (%d connections), so the kernel drops new connections", used)
	} else {
		p.Good("conntrack", "%d of %d connections", used, most)
	}
}

// CheckFastPath adds a note with the number of container A's connections whose packets skip the
// FORWARD chains. The counters of these chains do not count such packets.
func (p *Path) CheckFastPath() {
	count, err := p.Host.FastConnections(p.From)
	if err == nil && count > 0 {
		p.Note("fast path", "packets of %d connections of %s skip all chains and their counters, by the flowtable of the kernel", count, p.From)
	}
}
