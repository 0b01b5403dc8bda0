package cnitool

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// world is a node with two containers, and a machine outside that has a route to the containers.
// Each container serves port 80. The first container also has the host port 8080.
type world struct {
	*node
	c       []*setup.Namespace
	outside *setup.Namespace
	served  bool
}

// newWorld makes a world whose host has run a shell script with rules. It attaches no container
// yet.
func newWorld(t *testing.T, rules string) *world {
	t.Helper()
	w := &world{node: newNode(t, dual)}
	setuptest.Run(t, "sh", "-ec", rules)
	w.outside = w.node.outside(true)
	w.c = w.containers(2)
	return w
}

// add attaches both containers to a network with the given configuration.
func (w *world) add(conf object) {
	w.t.Helper()
	w.configure(conf.with(object{"ipMasq": false, "capabilities": object{"portMappings": true}}))
	w.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`, "CNI_ARGS=IP=10.88.0.2,fd88::2"}
	w.must("add", w.c[0])
	w.env = []string{"CNI_ARGS=IP=10.88.0.3,fd88::3"}
	w.must("add", w.c[1])
	w.env = nil
	if !w.served {
		for _, ns := range append(w.c, w.outside) {
			serve(w.t, ns, 80)
		}
		w.served = true
	}
}

// way is a path of packets, from a namespace to an address and port.
type way struct {
	name, to string
	from     *setup.Namespace
	port     int
}

// ways returns all paths of a world. Paths to Docker's containers are not included.
func (w *world) ways() []way {
	return []way{
		{"sibling", "10.88.0.3", w.c[0], 80}, {"sibling, IPv6", "fd88::3", w.c[0], 80},
		{"out", "192.0.2.2", w.c[0], 80}, {"out, IPv6", "2001:db8::2", w.c[0], 80},
		{"in", "10.88.0.3", w.outside, 80}, {"in, IPv6", "fd88::3", w.outside, 80},
		{"published", "192.0.2.1", w.outside, 8080}, {"published, IPv6", "2001:db8::1", w.outside, 8080},
	}
}

// blocked returns the names of the paths on which no answer comes. It tries all paths of the world,
// and the additional paths in more.
func (w *world) blocked(more ...way) []string {
	w.t.Helper()
	all := append(w.ways(), more...)
	names := make([]string, len(all))
	var group sync.WaitGroup
	for i, p := range all {
		group.Go(func() {
			if ask(w.t, p.from, "tcp", p.to, p.port) == "" {
				names[i] = p.name
			}
		})
	}
	group.Wait()
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

// both returns two names for each name: the name itself, for IPv4, and the name with ", IPv6".
func both(names ...string) (list []string) {
	for _, n := range names {
		list = append(list, n, n+", IPv6")
	}
	return list
}

// everyWay names the paths that a dropping FORWARD chain blocks.
var everyWay = both("sibling", "out", "in", "published")

// These are shell commands that make rules of other programs. If a command contains $I, the test
// runs it once for each iptables program: the variable I has the program's name.
const (
	dockerBridge = `
		ip netns add d; ip -n d link set lo up # Go asks once, where it first listens, whether there is IPv6
		ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip addr add fd17::1/64 dev docker0 nodad
		ip link add vd type veth peer name eth0 netns d; ip link set vd master docker0 up; ip link set docker0 up
		ip -n d link set eth0 up; ip -n d addr add 172.17.0.2/16 dev eth0; ip -n d addr add fd17::2/64 dev eth0 nodad
		ip -n d route add default via 172.17.0.1; ip -n d route add default via fd17::1
	`
	docker27 = `
		for chain in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do $I -N $chain; done
		$I -P FORWARD DROP
		$I -A FORWARD -j DOCKER-USER
		$I -A FORWARD -j DOCKER-ISOLATION-STAGE-1
		$I -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$I -A FORWARD -o docker0 -j DOCKER
		$I -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
		$I -A FORWARD -i docker0 -o docker0 -j ACCEPT
		$I -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
		$I -A DOCKER-ISOLATION-STAGE-1 -j RETURN
		$I -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
		$I -A DOCKER-ISOLATION-STAGE-2 -j RETURN
		$I -A DOCKER-USER -j RETURN
	`
	docker280 = `
		for chain in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do $I -N $chain; done
		$I -P FORWARD DROP
		$I -A FORWARD -j DOCKER-USER
		$I -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$I -A FORWARD -j DOCKER-ISOLATION-STAGE-1
		$I -A FORWARD -o docker0 -j DOCKER
		$I -A FORWARD -i docker0 -j ACCEPT
		$I -A DOCKER ! -i docker0 -o docker0 -j DROP
		$I -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
		$I -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
	`
	docker28 = `
		for chain in DOCKER DOCKER-BRIDGE DOCKER-CT DOCKER-FORWARD DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do $I -N $chain; done
		$I -P FORWARD DROP
		$I -A FORWARD -j DOCKER-USER
		$I -A FORWARD -j DOCKER-FORWARD
		$I -A DOCKER ! -i docker0 -o docker0 -j DROP
		$I -A DOCKER-BRIDGE -o docker0 -j DOCKER
		$I -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$I -A DOCKER-FORWARD -j DOCKER-CT
		$I -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
		$I -A DOCKER-FORWARD -j DOCKER-BRIDGE
		$I -A DOCKER-FORWARD -i docker0 -j ACCEPT
		$I -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
		$I -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
	`
	docker29 = `
		for chain in DOCKER DOCKER-BRIDGE DOCKER-CT DOCKER-FORWARD DOCKER-INTERNAL DOCKER-USER; do $I -N $chain; done
		$I -P FORWARD DROP
		$I -A FORWARD -j DOCKER-USER
		$I -A FORWARD -j DOCKER-FORWARD
		$I -A DOCKER ! -i docker0 -o docker0 -j DROP
		$I -A DOCKER-BRIDGE -o docker0 -j DOCKER
		$I -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$I -A DOCKER-FORWARD -j DOCKER-CT
		$I -A DOCKER-FORWARD -j DOCKER-INTERNAL
		$I -A DOCKER-FORWARD -j DOCKER-BRIDGE
		$I -A DOCKER-FORWARD -i docker0 -j ACCEPT
	`
	dockerNFT = `
		for f in ip ip6; do nft -f - <<-EOF
			table $f docker-bridges {
				chain filter-FORWARD {
					type filter hook forward priority filter; policy accept;
					oifname vmap { "docker0" : jump in-docker0 }
					iifname vmap { "docker0" : jump out-docker0 }
				}
				chain in-docker0 {
					ct state established,related counter accept
					iifname "docker0" counter accept
					counter drop comment "unpublished port drop"
				}
				chain out-docker0 {
					ct state established,related counter accept
					counter accept
				}
			}
		EOF
		done
	`
	ufw = `
		for chain in before after reject; do $I -N ufw-$chain-forward; done
		$I -P FORWARD DROP
		$I -A FORWARD -j ufw-before-forward
		$I -A FORWARD -j ufw-after-forward
		$I -A FORWARD -j ufw-reject-forward
		$I -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$I -A ufw-reject-forward -j REJECT
	`
	unknown = `
		nft -f - <<-EOF
			table inet filter {
				chain forward {
					type filter hook forward priority filter; policy drop;
					ct state established,related accept
				}
			}
		EOF
	`
	adminDenies  = "$I -A BRIDGEVETH-ADMIN -o br0 -p tcp --dport 80 -j DROP\n"
	dockerDenies = "$I -I DOCKER-USER -o br0 -p tcp --dport 80 -j DROP\n"
)

// TestSituations checks which packets pass on hosts where rules of other programs block packets.
// With "forward": "none", the paths in the field blocked must not work. With the default, all paths
// must work, except those that an administrator or Docker blocks.
func TestSituations(t *testing.T) {
	t.Parallel()
	nft, legacy := []string{"iptables-nft", "ip6tables-nft"}, []string{"iptables-legacy", "ip6tables-legacy"}
	towards := both("sibling", "in", "published") // the paths that rules of the administrator or of Docker block
	docker := both("to Docker's")
	for _, tt := range []struct {
		name     string
		programs []string
		each     string   // a command that runs once for each iptables program
		once     string   // a command that runs once, after all runs of each
		blocked  []string // paths that are blocked with "forward": "none"
		conf     object   // configuration of the network
		left     []string // paths that are still blocked with this configuration
		denies   string   // a rule that drops packets, for each iptables program
		denied   []string
	}{
		{name: "policy ACCEPT", programs: nft, each: "$I -P FORWARD ACCEPT\n", denies: adminDenies, denied: towards},
		{name: "no rules"},
		{name: "policy DROP", programs: nft, each: "$I -P FORWARD DROP\n", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "policy DROP in legacy", programs: legacy, each: "$I -P FORWARD DROP\n", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "policy DROP in both", programs: slices.Concat(nft, legacy), each: "$I -P FORWARD DROP\n", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "policy DROP in legacy, ACCEPT in nft", programs: legacy, each: "$I -P FORWARD DROP\n", once: "iptables-nft -P FORWARD ACCEPT; ip6tables-nft -P FORWARD ACCEPT", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "policy DROP in nft, ACCEPT in legacy", programs: nft, each: "$I -P FORWARD DROP\n", once: "iptables-legacy -P FORWARD ACCEPT; ip6tables-legacy -P FORWARD ACCEPT", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "bridged packets past iptables", programs: nft, each: "$I -P FORWARD DROP\n",
			once:    "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; echo 0 >/proc/sys/net/bridge/bridge-nf-call-ip6tables",
			blocked: both("out", "in", "published"), denies: adminDenies, denied: both("in", "published")},
		{name: "trailing REJECT", programs: nft, each: "$I -A FORWARD -j REJECT\n", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "trailing REJECT in legacy", programs: legacy, each: "$I -A FORWARD -j REJECT\n", blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "ufw", programs: nft, each: ufw, blocked: everyWay, denies: adminDenies, denied: towards},
		{name: "Docker 20 to 27", programs: nft, each: docker27, blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker 20 to 27 in legacy", programs: legacy, each: docker27, blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker 20 to 27 in legacy, DROP in nft", programs: legacy, each: docker27, once: "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP", blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker 28.0.0", programs: nft, each: docker280, blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker 28", programs: nft, each: docker28, blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker 29", programs: nft, each: docker29, blocked: slices.Concat(everyWay, docker), left: docker, denies: dockerDenies, denied: slices.Concat(towards, docker)},
		{name: "Docker's own tables", once: dockerNFT, blocked: docker, left: docker},
		{name: "Docker's own tables, and DROP left over", programs: nft, each: "$I -P FORWARD DROP\n", once: dockerNFT, blocked: slices.Concat(everyWay, docker), left: docker, denies: adminDenies, denied: slices.Concat(towards, docker)},
		{name: "an unknown table", once: unknown, blocked: everyWay, left: everyWay},
		{name: "an unknown table, its chain configured", once: unknown, blocked: everyWay, conf: object{"forwardChains": []string{"inet filter forward"}}},
		{name: "an unknown table, with a rule for our mark", once: unknown + "nft add rule inet filter forward meta mark '&' 0x100000 != 0 accept", blocked: everyWay, conf: object{"forwardMark": "0x100000"}},
		{name: "policy DROP, only replies inbound", programs: nft, each: "$I -P FORWARD DROP\n", blocked: everyWay, conf: object{"inbound": "established"}, left: both("in")},
		{name: "policy ACCEPT, only replies inbound", programs: nft, each: "$I -P FORWARD ACCEPT\n", conf: object{"inbound": "established"}, left: both("in")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			each := func(script string) string {
				all := ""
				for _, p := range tt.programs {
					all += "I=" + p + "\n" + script
				}
				return all
			}
			bridge := ""
			if slices.Contains(tt.blocked, docker[0]) {
				bridge = dockerBridge
			}
			w := newWorld(t, bridge+each(tt.each)+tt.once)
			var more []way
			if bridge != "" {
				d, err := setup.OpenNamespace("/run/netns/d")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close(); setuptest.Run(t, "ip", "netns", "delete", "d") })
				serve(t, d, 80)
				more = []way{{docker[0], "172.17.0.2", w.c[0], 80}, {docker[1], "fd17::2", w.c[0], 80}}
			}
			before := setuptest.Dump(t)
			w.add(dual.with(object{"forward": "none"}))
			if diff := cmp.Diff(tt.blocked, w.blocked(more...), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("blocked with \"forward\": \"none\" (-want +got):\n%s", diff)
			}
			w.must("del", w.c...)
			setuptest.SetSysctl(t, "ipv4/ip_forward", "0")
			setuptest.SetSysctl(t, "ipv6/conf/all/forwarding", "0")

			w.add(dual.with(tt.conf))
			if diff := cmp.Diff(tt.left, w.blocked(more...), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("blocked with the configuration (-want +got):\n%s", diff)
			}
			if tt.denies != "" {
				setuptest.Run(t, "sh", "-ec", each(tt.denies))
				if diff := cmp.Diff(tt.denied, w.blocked(more...), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("blocked by the administrator (-want +got):\n%s", diff)
				}
				setuptest.Run(t, "sh", "-ec", each("$I -D "+denial(tt.denies)))
			}
			w.must("del", w.c...)
			if tt.programs != nil { // Dump would show the tables that iptables makes
				setuptest.Same(t, before, "DEL left traces")
			}
		})
	}
}

// TestStatusDenied checks when STATUS fails because of a FORWARD chain. STATUS may fail only if the
// chain certainly drops all packets of containers. The error must name the chain.
func TestStatusDenied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, rules string
		keys        object
		named       bool
	}{
		{name: "a policy", rules: unknown, named: true},
		{name: "a last rule", rules: "nft add table ip mine; nft add chain ip mine fw '{ type filter hook forward priority 5; }'; nft add rule ip mine fw counter reject", named: true},
		{name: "IPv6 alone", rules: "nft add table ip6 mine; nft add chain ip6 mine fw '{ type filter hook forward priority 5; policy drop; }'"},
		{name: "a rule that may accept", rules: unknown + `nft add rule inet filter forward iifname '"br*"' accept`},
		{name: "a rule that may lead further", rules: unknown + "nft add chain inet filter more; nft add rule inet filter forward jump more"},
		{name: "a map of verdicts", rules: unknown + `nft add rule inet filter forward iifname vmap '{ "br0" : accept }'`},
		{name: "an unknown table, forward none", rules: unknown, keys: object{"forward": "none"}},
		{name: "not routed", rules: unknown, keys: object{"isDefaultGateway": false, "ipMasq": false}},
		{name: "Docker's policy, cured by ADD", rules: "iptables -P FORWARD DROP"},
		{name: "nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, dual)
			setuptest.Run(t, "sh", "-ec", tt.rules)
			before := setuptest.Dump(t)
			a := on("STATUS", 1, single.with(tt.keys)).run(t)
			if tt.named {
				if f := a.failed(t); f.Code != 51 || !strings.Contains(f.Msg, `set "forwardChains": ["`) {
					t.Errorf("%+v", f)
				}
			} else {
				a.ok(t)
			}
			setuptest.Same(t, before, "STATUS changed something")
		})
	}
}

// denial returns the chain and the rule in a command that adds a rule: the text after -A or -I.
func denial(command string) string { return command[len("$I -A "):] }
