package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	packetTime = 50 * time.Millisecond // duration of one measurement
	manyFlows  = 100

	// Names of a second network, for the path between two bridges.
	otherName   = "other"
	otherBridge = "bench1"
	otherSubnet = "10.89.0.0/16"

	keyFast = "bridgeveth-fast"
)

// routed has the configuration keys for a host with two networks. Packets between the two networks
// are not masqueraded. With a masquerade, br_netfilter would restore the destination of a reply
// before the reply reaches the flowtable, so the flowtable would not find the connection.
var routed = plugin{
	"forward": "iptables", "ipMasq": true, "masqExclude": []string{subnet, otherSubnet},
	"capabilities": map[string]bool{"portMappings": true},
}

// packetSystems are the systems whose packets are compared. The reference plugins do not have the
// key masqExclude, so they masquerade packets between bridges.
var packetSystems = []system{
	*findSystem(keyChain),
	{key: keyFull, title: "bridgeveth with ipMasq, the FORWARD fix and host ports", ours: true, plugins: []plugin{ours(routed)}},
	{key: keyFast, title: `the same with "fastPath": true`, ours: true, plugins: []plugin{ours(with(routed, "fastPath", true))}},
}

// with returns a copy of a configuration with a new value for one key.
func with(p plugin, key string, value any) plugin {
	p = maps.Clone(p)
	p[key] = value
	return p
}

// packetPaths are the paths that the benchmark of packets measures.
var packetPaths = []path{toOutside, toHostPort, toOtherBridge, toContainer}

// packetRow holds the rates of all systems, in packets a second. They were measured on one path,
// with one kind of packets, and with a given number of connections and rules.
type packetRow struct {
	Rules   int                `json:"foreignRules"` // in FORWARD, ahead of all others
	Path    string             `json:"path"`
	Traffic string             `json:"traffic"`
	Flows   int                `json:"flows"`
	Rates   map[string]float64 `json:"packetsPerSecond"` // by system
}

// measurePackets measures all paths with all kinds of packets, on one processor.
func measurePackets(ctx context.Context, opts options) (rep *report, err error) {
	began := time.Now()
	if rep, err = newReport(opts); err != nil {
		return nil, err
	}
	if _, err := pin(); err != nil {
		return nil, err
	}
	var scenes []*scene
	for i := range packetSystems {
		s, err := newPacketScene(&packetSystems[i], opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", packetSystems[i].key, err)
		}
		scenes = append(scenes, s)
	}
	present := 0
	for _, rules := range opts.rules {
		for _, s := range scenes {
			if err := s.addRules(present, rules); err != nil {
				return nil, fmt.Errorf("%s: %w", s.key, err)
			}
		}
		present = rules
		for _, p := range packetPaths {
			for _, t := range traffics {
				for _, count := range []int{1, manyFlows} {
					row := packetRow{rules, p.name, t.name, count, map[string]float64{}}
					if err := row.measure(ctx, scenes, p, t, opts.rounds); err != nil {
						return nil, fmt.Errorf("%s, %s, %d flows, %d rules: %w", p.name, t.name, count, rules, err)
					}
					rep.Packets = append(rep.Packets, row)
				}
			}
		}
	}
	rep.Seconds, rep.Counted = time.Since(began).Seconds(), os.Getenv("ICOUNT") != ""
	return rep, nil
}

// newPacketScene calls newScene, and adds a third container on another bridge. It switches
// segmentation offload off: otherwise, many packets of a TCP connection would pass the host as one
// large packet.
func newPacketScene(s *system, opts options) (*scene, error) {
	sc, err := newScene(s, opts, true)
	if err != nil {
		return nil, err
	}
	other := &lane{system: s.beside(), node: sc.node, cni: sc.cni}
	if other.list, err = other.config(otherName); err != nil {
		return nil, err
	}
	others, err := sc.node.newGuests(1, firstPort+len(sc.visitors))
	if err != nil {
		return nil, err
	}
	sc.third = others[0]
	sc.name(others)
	if _, err := sc.node.each(others, 1, other.add); err != nil {
		return nil, err
	}
	for _, g := range []*guest{sc.first, sc.second, sc.third, sc.outside} {
		if err := sc.in(g, noSegmentation); err != nil {
			return nil, err
		}
	}
	return sc, nil
}

// beside returns the system with the configuration of the second network: another bridge and
// another subnet.
func (s *system) beside() *system {
	first := with(s.plugins[0], "bridge", otherBridge)
	first["ipam"] = with(first["ipam"].(map[string]any), "subnet", otherSubnet)
	return &system{key: s.key, ours: s.ours, plugins: append([]plugin{first}, s.plugins[1:]...)}
}

// noSegmentation limits the packets that sockets send on the link eth0 to the MTU. The calling
// thread must be in the container.
func noSegmentation() error {
	l, err := netlink.LinkByName(containerIf)
	if err != nil {
		return err
	}
	return netlink.LinkSetGSOMaxSegs(l, 1)
}

// addRules inserts rules at the beginning of FORWARD. The rules match none of the measured packets.
// The parameter from is the number of rules that addRules has inserted before, and the parameter to
// is the number that must exist afterwards.
func (s *scene) addRules(from, to int) error {
	var text strings.Builder
	text.WriteString("*filter\n")
	for i := from; i < to; i++ {
		fmt.Fprintf(&text, "-I FORWARD -s 198.18.%d.%d -j DROP\n", i/256, i%256)
	}
	text.WriteString("COMMIT\n")
	return s.node.run(func() error {
		cmd := exec.Command("iptables-restore", "-w", "--noflush")
		cmd.Stdin = strings.NewReader(text.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iptables-restore: %w: %s", err, out)
		}
		return nil
	})
}

// measure measures one path with one kind of packets, for all systems in turns. It takes the best
// round of each system, because other work on the machine can only make a round worse. The first
// round is a warm-up and does not count.
func (r *packetRow) measure(ctx context.Context, scenes []*scene, p path, t traffic, rounds int) error {
	open := make([]*flows, len(scenes))
	for i, s := range scenes {
		f, err := openFlows(t, r.Flows, p.address(s),
			func(f func() error) error { return s.in(p.from(s), f) },
			func(f func() error) error { return s.in(p.to(s), f) })
		if err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
		defer f.close()
		open[i] = f
		if err := s.verifyOffload(p, f); err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
	}
	for round := range rounds + 1 {
		for i, s := range scenes {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rate, err := open[i].run(packetTime)
			if err != nil {
				return fmt.Errorf("%s: %w", s.key, err)
			}
			if round > 0 {
				r.Rates[s.key] = max(r.Rates[s.key], rate)
			}
		}
	}
	return nil
}

// listings is how often verifyOffload lists the connections. The kernel lists them in parts, and finds the
// beginning of the next part by its number. If an old connection ends in between, one list lacks another
// connection (ct_get_idx in net/netfilter/nf_conntrack_standalone.c).
const listings = 5

// verifyOffload checks that either all connections are in a flowtable, or none, as the system and
// the path require. Otherwise the measured rates would mean nothing.
func (s *scene) verifyOffload(p path, f *flows) error {
	offloaded := map[string]bool{} // by the part of a line that names the connection as the client sees it
	for range listings {
		var text []byte
		err := s.node.run(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/nf_conntrack"); return err })
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if _, tuple, found := strings.Cut(line, "src="); found && strings.Contains(line, "[OFFLOAD]") {
				offloaded[strings.Join(strings.Fields(tuple)[:4], " ")] = true
			}
		}
	}
	got, want := 0, choose(s.key == keyFast && !p.bridged, len(f.clients), 0)
	for _, client := range f.clients {
		from, err := unix.Getsockname(client)
		if err != nil {
			return err
		}
		to, err := unix.Getpeername(client)
		if err != nil {
			return err
		}
		a, b := from.(*unix.SockaddrInet4), to.(*unix.SockaddrInet4)
		if offloaded[fmt.Sprintf("%s dst=%s sport=%d dport=%d", net.IP(a.Addr[:]), net.IP(b.Addr[:]), a.Port, b.Port)] {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("%d of %d connections are in a flowtable, want %d", got, len(f.clients), want)
	}
	return nil
}

// worst returns the smallest ratio for a path and a kind of packets, with the usual number of
// rules. A ratio is the rate with the fast path divided by the rate of the reference plugins.
func (r *report) worst(p path, t traffic) float64 {
	least := 0.0
	for _, row := range r.Packets {
		if row.Path == p.name && row.Traffic == t.name && row.Rules == usualRules {
			least = min(cmp.Or(least, 100), row.ratio(keyFast))
		}
	}
	return least
}

// ratio returns the rate of a system divided by the rate of the reference plugins, or 0 if these
// were not measured.
func (r *packetRow) ratio(key string) float64 {
	if r.Rates[keyChain] == 0 {
		return 0
	}
	return r.Rates[key] / r.Rates[keyChain]
}

// usualRules is the approximate number of rules in FORWARD on a host with Docker. The targets apply
// to this number of rules.
const usualRules = 40

// packetTargets are the targets of the benchmark of packets.
var packetTargets = packetTargetsOf(toOutside, toHostPort)

func packetTargetsOf(paths ...path) (all []target) {
	for _, p := range paths {
		for _, t := range traffics {
			what := fmt.Sprintf("%s, %s, fastPath / the reference with %d rules", p.name, t.name, usualRules)
			all = append(all, target{what, 1.3, true, func(r *report) float64 { return r.worst(p, t) }, nil})
		}
	}
	return all
}

// printPackets writes the results of the benchmark of packets as a table.
func (r *report) printPackets(w io.Writer) {
	r.printHeading(w, "packets through a host, on one processor", packetSystems)
	fmt.Fprintf(w, "\nthousand packets a second%s; ratios are to the reference, more is better\n",
		choose(r.Counted, " of the emulated clock, which is 10^9 instructions", ""))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "path\tpackets\tflows\trules\treference\tbridgeveth\tratio\tfastPath\tratio\t")
	rows := slices.Clone(r.Packets)
	slices.SortStableFunc(rows, func(a, b packetRow) int { return pathIndex(a.Path) - pathIndex(b.Path) })
	for _, row := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%.1f\t%.1f\t%s\t%.1f\t%s\t\n", row.Path, row.Traffic, row.Flows, row.Rules,
			row.Rates[keyChain]/1000, row.Rates[keyFull]/1000, ratio(row.ratio(keyFull)), row.Rates[keyFast]/1000, ratio(row.ratio(keyFast)))
	}
	_ = tw.Flush() // a failure could not be printed either
	r.printTargets(w, packetTargets)
}

func pathIndex(name string) int {
	return slices.IndexFunc(packetPaths, func(p path) bool { return p.name == name })
}
