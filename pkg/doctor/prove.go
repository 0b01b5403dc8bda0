package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// droppedBy is how stations begin that are known to have dropped our own packet.
const droppedBy = "dropped by"

// smallest is the size of our packet with its IP header, in bytes: what every link with
// IPv6 takes would be 1280, and this is less than any MTU.
const smallest = 84

// prove sends a packet and says what became of it.
func (w *walk) prove(ctx context.Context) error {
	p, err := newProbe(w.a.Namespace, w.from, w.to)
	if err != nil {
		w.note("our packet", "%v", err)
		return nil
	}
	defer p.close()
	watched := []*setup.Namespace{w.Host, w.a.Namespace}
	if w.b.Namespace != nil {
		watched = append(watched, w.b.Namespace)
	}
	var traces []*trace
	for _, ns := range watched {
		t, err := startTrace(ns, flow{w.from, w.to, p.id})
		if err != nil {
			for _, t := range traces {
				_, _ = t.stop() // the first error counts
			}
			return err
		}
		traces = append(traces, t)
	}
	before := w.counters(watched)
	var failure error
	for range probeTries {
		if ctx.Err() != nil {
			break
		}
		if w.Answered, err = p.ask(smallest); w.Answered {
			break
		}
		failure = errors.Join(failure, err)
	}
	after := w.counters(watched)
	var passed []verdict
	var drops []verdict
	var where []*setup.Namespace
	for i, t := range traces {
		verdicts, err := t.stop()
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			if v.dropped {
				drops, where = append(drops, v), append(where, watched[i])
			} else if watched[i] == w.Host && !slices.ContainsFunc(passed, func(o verdict) bool { return o.where() == v.where() }) {
				passed = append(passed, v)
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if w.Answered {
		for i, s := range w.Stations {
			if s.State == Bad && strings.HasPrefix(s.Name, "neighbour") {
				w.Stations[i].State = Note // they have asked again
			}
		}
		w.good("our packet", "answered")
		w.fullSize(p)
		return nil
	}
	for _, v := range passed {
		w.good(v.where(), "lets it pass")
	}
	seen := map[string]bool{}
	for i, v := range drops {
		if !seen[v.where()] {
			seen[v.where()] = true
			w.dropped(v, where[i])
		}
	}
	for name, count := range after {
		switch {
		case count <= before[name]:
		case strings.HasPrefix(name, "the filter") && w.refused:
			w.note(droppedBy+" "+name, "its counter went up by %d with our packets", count-before[name])
		default:
			w.sad(droppedBy+" "+name, remedyOf(name), "its counter went up by %d with our packets", count-before[name])
		}
	}
	w.silence(passed, failure)
	return nil
}

// dropped names the rule that dropped our packet.
func (w *walk) dropped(v verdict, ns *setup.Namespace) {
	place := ""
	if ns != w.Host {
		place = " in the container's own namespace"
	}
	w.sad(fmt.Sprintf("%s %s%s", droppedBy, v.where(), place), w.adviceOn(v, ns), "%s", v.text(ns))
}

// adviceOn is what to do about a rule that drops, which depends on whose it is.
func (w *walk) adviceOn(v verdict, ns *setup.Namespace) string {
	chain := fmt.Sprintf("%s %s %s", families[v.family], v.table, v.chain)
	theirs := "whoever wrote that rule has to let the packet pass: nft -a list chain " + chain
	switch {
	case v.table == "bridgeveth":
		return "that is what the network's configuration says: ingressPolicy, inbound, macspoofchk, ipspoofchk, ipMasq"
	case ns != w.Host:
		return theirs
	case v.table == "firewalld":
		return `give the network "forward": "auto" (the default), and run: bvctl repair; or it is a rule of yours: firewall-cmd --list-all-policies`
	case v.table != "filter" || families[v.family] == "inet":
		return theirs + `; or give the network "forwardChains", and run: bvctl repair`
	case v.chain != "FORWARD" && !strings.HasPrefix(v.chain, "ufw"):
		return theirs
	case ns.CheckForward(w.a.Bridge, familyOf(w.from)) == nil:
		return `give the network "forward": "auto" (the default), and run: bvctl repair`
	}
	return theirs
}

// silence says what may be behind a packet that nobody has dropped and nobody answered.
func (w *walk) silence(passed []verdict, failure error) {
	if w.Obstacle() != nil {
		w.note("our packet", "no answer")
		return
	}
	if w.b.Namespace != nil {
		if value, _ := w.sysctl(w.b.Namespace, "ipv4/icmp_echo_ignore_all"); w.to.Is4() && value == "1" {
			w.bad("our packet", w.b.in("sysctl -w net.ipv4.icmp_echo_ignore_all=0"), "%s answers no ping; it may be reached all the same", w.b.Name)
			return
		}
	}
	if w.b.Namespace == nil && !w.local && failure == nil && !translated(passed) {
		w.sad("way back", `set "ipMasq", or give %s a route back`, "the packet leaves the host as from %s, and whoever gets it needs a route back to that address", w.from)
		return
	}
	w.sad("our packet", "look beyond this host: is that address up, and does it answer pings?", "it left the host, and nobody answered: %v", failure)
}

// translated says whether a rule for what leaves the host has taken our packet, as one of
// masquerade does.
func translated(passed []verdict) bool {
	return slices.ContainsFunc(passed, func(v verdict) bool { return strings.EqualFold(v.chain, "postrouting") && v.handle != 0 })
}

// fullSize sends a packet as large as the container's link takes, which a link on the way
// may swallow without a word.
func (w *walk) fullSize(p *probe) {
	var link netlink.Link
	if err := w.a.Namespace.Do(func() (err error) { link, err = netlink.LinkByName(w.a.Interface); return err }); err != nil {
		return
	}
	mtu := link.Attrs().MTU
	fits := func(size int) (bool, bool) {
		answered, err := p.ask(size)
		if errors.Is(err, unix.EMSGSIZE) { // somebody on the way has said so, as he should
			return false, true
		}
		return answered, false
	}
	answered, told := fits(mtu)
	if !answered && !told {
		answered, told = fits(mtu)
	}
	if answered || told {
		w.good("packets of full size", "pass, with %d bytes", mtu)
		return
	}
	low, high := smallest, mtu
	for high-low > 1 {
		middle := (low + high) / 2
		if ok, _ := fits(middle); ok {
			low = middle
		} else {
			high = middle
		}
	}
	w.bad("packets of full size", w.a.in("ip link set %s mtu %d", w.a.Interface, low),
		"vanish: of %d bytes and less they are answered, and %s sends up to %d", low, w.a.Interface, mtu)
}

// counters reads those of what drops packets without a word to nf_tables: rules of
// iptables-legacy, and the filter of reverse paths.
func (w *walk) counters(namespaces []*setup.Namespace) map[string]int {
	all := map[string]int{}
	for i, ns := range namespaces {
		place := map[bool]string{true: "", false: " in a container"}[i == 0]
		_ = ns.Do(func() error { // what cannot be read has no counters
			if b, err := os.ReadFile("/proc/thread-self/net/netstat"); err == nil {
				all["the filter of reverse paths"+place] = counterOf(string(b), "IPReversePathFilter")
			}
			names := map[bool][2]string{true: {"ip_tables_names", "iptables-legacy-save"}, false: {"ip6_tables_names", "ip6tables-legacy-save"}}[w.from.Is4()]
			if used, err := os.ReadFile("/proc/thread-self/net/" + names[0]); err != nil || len(used) == 0 {
				return err // asking iptables-legacy would make its tables
			}
			saved, err := exec.Command(program(names[1]), "-c").Output()
			for rule, count := range legacyDrops(string(saved)) {
				all["iptables-legacy"+place+", "+rule] = count
			}
			return err
		})
	}
	return all
}

// counterOf reads a counter of /proc/net/netstat: a line of names, and one of values.
func counterOf(text, name string) int {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, name); at >= 0 && at < len(values) {
			count, _ := strconv.Atoi(values[at])
			return count
		}
	}
	return 0
}

var (
	legacyPolicy = regexp.MustCompile(`(?m)^:(\w+) DROP \[(\d+):`)
	legacyRule   = regexp.MustCompile(`(?m)^\[(\d+):\d+\] (-A .* -j (?:DROP|REJECT).*)$`)
)

// legacyDrops reads what iptables-legacy-save -c says of rules that drop.
func legacyDrops(saved string) map[string]int {
	all := map[string]int{}
	for _, m := range legacyPolicy.FindAllStringSubmatch(saved, -1) {
		all["policy DROP of "+m[1]], _ = strconv.Atoi(m[2])
	}
	for _, m := range legacyRule.FindAllStringSubmatch(saved, -1) {
		all[m[2]], _ = strconv.Atoi(m[1])
	}
	return all
}

// remedyOf is what to do about a counter.
func remedyOf(name string) string {
	switch {
	case strings.HasPrefix(name, "the filter"):
		return "the way back to the sender is another: look at the routes, or set rp_filter to 2"
	case strings.Contains(name, "FORWARD") && !strings.Contains(name, "container"):
		return `give the network "forward": "auto" (the default), and run: bvctl repair`
	}
	return "whoever wrote that rule has to let the packet pass: iptables-legacy-save -c"
}
