package agent

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// maxExact is the largest number of addresses that is printed exactly. A larger number is rounded,
// for example to 1.8e+19. "bvctl leases" uses the same limit.
const maxExact = 1_000_000_000

// node answers a request for /node with the result of the last comparison. "bvctl node" prints this
// text.
func (a *Agent) node(w http.ResponseWriter, _ *http.Request) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	verdict, code := a.verdict()
	w.WriteHeader(code)
	fmt.Fprintf(w, "node %s, MTU of new pods %d\n%s", a.Self, a.last.state.MTU, verdict)
	a.printRanges(w)
	a.printPeers(w)
}

// printRanges prints how many addresses are leased in each range of the node, and in each former
// range in which pods still have addresses.
func (a *Agent) printRanges(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nRANGE\tLEASED")
	left := slices.Clone(a.last.leases.usage)
	for _, own := range a.last.state.Ranges {
		leased := "0"
		if !a.last.leases.known {
			leased = "-"
		}
		if i := slices.IndexFunc(left, func(u ipam.Usage) bool { return own.Contains(u.First) }); i >= 0 {
			leased = fullness(left[i])
			left = slices.Delete(left, i, i+1)
		}
		fmt.Fprintf(t, "%v\t%s\n", own, leased)
	}
	for _, u := range left {
		if u.Leased > 0 {
			fmt.Fprintf(t, "%v\t%s, outside spec.podCIDRs\n", u.Interval, fullness(u))
		}
	}
	_ = t.Flush() // this fails only if the client has closed the connection
}

// fullness returns how many addresses of a range are leased, for example "3 of 254".
func fullness(u ipam.Usage) string {
	size := strconv.FormatUint(u.Size, 10)
	if u.Size > maxExact {
		size = fmt.Sprintf("%.1e", float64(u.Size))
	}
	return fmt.Sprintf("%d of %s", u.Leased, size)
}

// printPeers prints a line for each pod range of the other nodes: the way of the packets (for example
// the tunnel), and the kernel's route.
func (a *Agent) printPeers(w io.Writer) {
	routes := map[netip.Prefix]cluster.Route{}
	for _, r := range a.last.state.Routes {
		routes[r.Range] = r
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPEER\tINTERNAL IP\tRANGE\tREACHED\tROUTE")
	peers := slices.Clone(a.last.nodes)
	slices.SortFunc(peers, func(a, b cluster.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range peers {
		if p.Name == a.Self {
			continue
		}
		addresses := strings.Trim(fmt.Sprint(p.Addresses), "[]")
		for _, r := range p.Ranges {
			how, through := "no", "-"
			if route, ok := routes[r]; ok {
				how, through = "direct", fmt.Sprintf("via %v dev %s", route.Gateway, route.Link)
				if route.Link == cluster.TunnelLink {
					how = "tunnel"
				}
			} else if a.Settings.Routing == cluster.RoutingNone {
				how = "fabric"
			}
			fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%s\n", p.Name, cmp.Or(addresses, "-"), r, how, through)
		}
		if len(p.Ranges) == 0 {
			fmt.Fprintf(t, "%s\t%s\t-\tno\t-\n", p.Name, cmp.Or(addresses, "-"))
		}
	}
	_ = t.Flush() // this fails only if the client has closed the connection
}
