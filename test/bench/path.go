package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	pathTime  = 25 * time.Millisecond // duration of one measurement of throughput
	exchanges = 500                   // number of exchanges in one measurement of latency
	pathPort  = 80                    // port of the servers, in containers and outside
)

// Addresses of the link between the host and a simulated machine outside of the host.
var outsideHost, outsideGuest = net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)

// path is a path that packets take, for example from a container to a host port.
type path struct {
	name     string
	bridged  bool                // not routed
	from, to func(*scene) *guest // nil means the host
	address  func(*scene) string
}

var (
	toContainer = path{"container to container", true, first, second, func(s *scene) string { return s.address(s.second, pathPort) }}
	toHost      = path{"container to host", false, first, host, func(s *scene) string {
		return net.JoinHostPort(s.gateway.String(), strconv.Itoa(pathPort))
	}}
	toHostPort = path{"outside to host port", false, outside, second, func(s *scene) string {
		return net.JoinHostPort(outsideHost.String(), strconv.Itoa(s.second.port))
	}}
	toOutside = path{"container to outside, masqueraded", false, first, outside, func(s *scene) string {
		return net.JoinHostPort(outsideGuest.String(), strconv.Itoa(pathPort))
	}}
	toOtherBridge = path{"container to another bridge", false, first, third, func(s *scene) string { return s.address(s.third, pathPort) }}
)

// paths are the paths that "make bench" measures.
var paths = []path{toContainer, toHost, toHostPort, toOutside}

func first(s *scene) *guest   { return s.first }
func second(s *scene) *guest  { return s.second }
func third(s *scene) *guest   { return s.third }
func outside(s *scene) *guest { return s.outside }
func host(*scene) *guest      { return nil }

// scene is a lane (a system with its node) with two attached containers, and a simulated machine
// outside of the node.
type scene struct {
	*lane
	first, second, outside *guest
	third                  *guest // on another bridge, for packets only
	gateway                net.IP
}

// pathRow holds the throughput and the latency of one system on one path.
type pathRow struct {
	Path    string  `json:"path"`
	System  string  `json:"system"`
	Gbits   float64 `json:"gbits"`   // per second, by one TCP connection
	Latency float64 `json:"latency"` // microseconds from a byte to its answer by TCP; median
}

// pathSystems are the systems that are compared: bridgeveth; bridgeveth with "forward": "sysctl",
// where bridged packets bypass iptables; and the reference plugins.
var pathSystems = []string{keyFull, keySysctl, keyChain}

// measurePaths sends packets on all paths, for all systems in turns, on one processor. The sender,
// the receiver and the kernel share this processor, so a time includes all work for a packet. With
// two processors, the times would depend more on the scheduler than on the system. Each path is
// measured in many short tries. The best try counts, because other work on the machine can only
// make a try worse.
func measurePaths(ctx context.Context, opts options) (rows []pathRow, err error) {
	all, err := pin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, schedule(all)) }()
	var scenes []*scene
	for _, key := range pathSystems {
		if !slices.Contains(opts.systems, key) {
			continue
		}
		s, err := newScene(findSystem(key), opts, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		scenes = append(scenes, s)
	}
	for _, p := range paths {
		gbits, latency := map[*scene][]float64{}, map[*scene][]float64{}
		scenes := slices.DeleteFunc(slices.Clone(scenes), func(s *scene) bool { return s.key == keySysctl && !p.bridged })
		for range 8 * opts.rounds {
			for _, s := range scenes {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				g, l, err := s.measure(p)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", s.key, p.name, err)
				}
				gbits[s], latency[s] = append(gbits[s], g), append(latency[s], l)
			}
		}
		for _, s := range scenes {
			rows = append(rows, pathRow{p.name, s.key, slices.Max(gbits[s]), slices.Min(latency[s])})
		}
	}
	return rows, nil
}

// pin restricts this process to the last processor that it may use. It returns all processors that
// the process may use.
func pin() (all *unix.CPUSet, err error) {
	all, last := new(unix.CPUSet), new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, all); err != nil {
		return nil, fmt.Errorf("which processors this process may use: %w", err)
	}
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			last.Zero()
			last.Set(i)
		}
	}
	return all, schedule(last)
}

// schedule restricts all present threads of this process to these processors. Future threads
// inherit the restriction.
func schedule(processors *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, processors); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("the processors of thread %d: %w", id, err)
		}
	}
	return nil
}

// newScene attaches two containers to a node. It also simulates a machine outside of the node, with
// a link to the node. It sets the policy of FORWARD to ACCEPT, because the host ports of the
// reference plugins would otherwise be unreachable. With udp, the host ports are open for UDP too.
func newScene(s *system, opts options, udp bool) (*scene, error) {
	l, err := newLane(s, opts, 3)
	if err != nil {
		return nil, err
	}
	sc := &scene{lane: l, first: l.visitors[0], second: l.visitors[1], outside: l.visitors[2]}
	l.name(l.visitors)
	for _, g := range l.visitors {
		g.udp = udp
	}
	if _, err := l.node.each(l.visitors[:2], 1, l.add); err != nil {
		return nil, err
	}
	if _, sc.gateway, err = sc.first.addresses(); err != nil {
		return nil, err
	}
	return sc, errors.Join(
		l.node.inGuest(sc.outside, func() error { return joinOutside(l.node) }),
		l.node.run(func() error { return errors.Join(setAddress("uplink", outsideHost), forwardPolicy("ACCEPT")) }),
	)
}

// joinOutside connects the calling thread's network namespace to a node (a simulated host) by a
// veth pair.
func joinOutside(n *node) error {
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: containerIf}, PeerName: "uplink", PeerNamespace: netlink.NsFd(int(n.net.Fd())),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	return setAddress(containerIf, outsideGuest)
}

// setAddress gives an address to a link in the calling thread's network namespace, and sets the
// link up.
func setAddress(name string, address net.IP) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	err = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: address, Mask: net.CIDRMask(24, 32)}})
	return errors.Join(err, netlink.LinkSetUp(l))
}

// address returns the address and port at which clients reach the server in a container.
func (s *scene) address(g *guest, port int) string {
	own, _, err := g.addresses()
	if err != nil {
		return "" // no server there
	}
	return net.JoinHostPort(own.String(), strconv.Itoa(port))
}

// in runs f in the container's network namespace, or in that of the node (the simulated host) if g
// is nil.
func (s *scene) in(g *guest, f func() error) error {
	if g == nil {
		return s.node.run(f)
	}
	return s.node.inGuest(g, f)
}

// measure measures first the throughput and then the latency of a path, each with a new TCP
// connection.
func (s *scene) measure(p path) (gbits, latency float64, err error) {
	var l net.Listener
	err = s.in(p.to(s), func() (err error) { l, err = net.Listen("tcp4", ":"+strconv.Itoa(pathPort)); return err })
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	for _, step := range []struct {
		to      *float64
		measure func(client, server net.Conn) (float64, error)
	}{{&gbits, carried}, {&latency, roundTrip}} {
		var client net.Conn
		err := s.in(p.from(s), func() (err error) { client, err = net.DialTimeout("tcp4", p.address(s), 5*time.Second); return err })
		if err != nil {
			return 0, 0, err
		}
		server, err := l.Accept()
		if err == nil {
			*step.to, err = step.measure(client, server)
			err = errors.Join(err, server.Close())
		}
		if err := errors.Join(err, client.Close()); err != nil {
			return 0, 0, err
		}
	}
	return gbits, latency, nil
}

// carried returns the throughput of one connection in Gbit/s.
func carried(client, server net.Conn) (float64, error) {
	sent := make(chan error, 1)
	began := time.Now()
	go func() {
		b := make([]byte, 128<<10)
		var err error
		for err == nil && time.Since(began) < pathTime {
			_, err = client.Write(b)
		}
		sent <- errors.Join(err, client.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, server)
	took := time.Since(began)
	return float64(n) * 8 / took.Seconds() / 1e9, errors.Join(err, <-sent)
}

// roundTrip returns the median time from a byte to its answer, in microseconds.
func roundTrip(client, server net.Conn) (float64, error) {
	echoed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(server, server, exchanges)
		echoed <- err
	}()
	took := make([]float64, exchanges)
	b := []byte{1}
	for i := range took {
		began := time.Now()
		if _, err := client.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(client, b); err != nil {
			return 0, err
		}
		took[i] = float64(time.Since(began).Nanoseconds()) / 1000
	}
	slices.Sort(took)
	return took[len(took)/2], <-echoed
}

func (r *report) path(name, key string) *pathRow {
	i := slices.IndexFunc(r.Paths, func(p pathRow) bool { return p.Path == name && p.System == key })
	if i < 0 {
		return nil
	}
	return &r.Paths[i]
}

// printPaths writes the results of all paths as a table.
func (r *report) printPaths(w io.Writer) {
	if len(r.Paths) == 0 {
		return
	}
	fmt.Fprintln(w, "\none TCP connection at a time, on one processor; ratios are to the reference, more is better")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "path\tsystem\tGbit/s\tratio\tthere and back, µs\tratio\t")
	for _, p := range r.Paths {
		var faster, sooner float64
		if theirs := r.path(p.Path, keyChain); theirs != nil {
			faster, sooner = p.Gbits/theirs.Gbits, theirs.Latency/p.Latency
		}
		fmt.Fprintf(tw, "%s\t%s\t%.2f\t%s\t%.1f\t%s\t\n", p.Path, p.System, p.Gbits, ratio(faster), p.Latency, ratio(sooner))
	}
	_ = tw.Flush() // a failure could not be printed either
}
