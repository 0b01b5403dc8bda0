package probe

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Counter identifies a counter of dropped packets outside of nf_tables.
type Counter struct {
	Namespace *setup.Namespace
	Rule      string // of iptables-legacy; "" for the reverse path filter (rp_filter)
}

// Bursts contains the number of packets in each burst of SendBursts. A counter that grows by
// exactly these numbers has counted the doctor's packets, and no others.
var Bursts = []int{2, 3}

// SendBursts sends each burst of requests, and stops when a request is answered. It returns by how
// much each burst increased each counter, whether a request was answered, and the last error of
// sending.
func SendBursts(ctx context.Context, e *Echo, posts Posts) (growth map[Counter][]int, answered bool, failure error) {
	growth = map[Counter][]int{}
	before := readCounters(posts, e.to.Is4())
	for _, size := range Bursts {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		answered, err := e.Burst(size)
		if answered {
			return growth, true, nil
		}
		if err != nil {
			failure = err
		}
		after := readCounters(posts, e.to.Is4())
		for c, count := range after {
			growth[c] = append(growth[c], count-before[c])
		}
		before = after
	}
	return growth, false, failure
}

// readCounters reads the counters of dropped packets in the namespaces of all posts.
func readCounters(posts Posts, is4 bool) map[Counter]int {
	all := map[Counter]int{}
	for _, at := range posts {
		_ = at.Namespace.Do(func() error { // counters that cannot be read are left out
			if b, err := os.ReadFile("/proc/thread-self/net/netstat"); err == nil {
				all[Counter{at.Namespace, ""}] = counterOf(string(b), "IPReversePathFilter")
			}
			names := map[bool][2]string{true: {"ip_tables_names", "iptables-legacy-save"}, false: {"ip6_tables_names", "ip6tables-legacy-save"}}[is4]
			if used, err := os.ReadFile("/proc/thread-self/net/" + names[0]); err != nil || len(used) == 0 {
				return err // iptables-legacy-save would create the tables
			}
			save, err := setup.ProgramPath(names[1])
			if err != nil {
				return err
			}
			saved, err := exec.Command(save, "-c").Output()
			for rule, count := range legacyDrops(string(saved)) {
				all[Counter{at.Namespace, rule}] = count
			}
			return err
		})
	}
	return all
}

// counterOf returns the counter with this name. The parameter text is the content of
// /proc/net/netstat, which has a line of names before each line of values.
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

// legacyDrops returns the packet counts of the rules and policies that drop packets. The parameter
// saved is the output of iptables-legacy-save -c.
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
