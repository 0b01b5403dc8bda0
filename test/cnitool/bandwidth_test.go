package cnitool

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// limited returns conf with bandwidth limits, in the form that a runtime passes to a plugin.
func limited(conf, bandwidth object) object {
	asked, _ := conf["runtimeConfig"].(object)
	return conf.with(object{"runtimeConfig": asked.with(object{"bandwidth": bandwidth})})
}

// limits has a rate and a burst for each direction. The bursts last 40 ms. ADD shortens only bursts
// of more than 50 ms.
var limits = object{"ingressRate": 20e6, "ingressBurst": 800e3, "egressRate": 10e6, "egressBurst": 400e3}

// ifbOf1 is the name of the IFB that limits the packets from container number 1.
var ifbOf1 = strings.Replace(portOf, "veth", "ifb", 1)

// rate sends data by TCP from one namespace to another, and returns the bits per second on the
// wire.
//
// iperf3 counts payload, while a limit counts whole frames. With an MTU of 1500, a frame has 1514
// bytes, of which 1448 are payload with IPv4 and 1428 with IPv6. The first second is not counted,
// because the burst and TCP's slow start distort it.
func rate(t *testing.T, from, to *setup.Namespace, v6 bool) float64 {
	t.Helper()
	addresses, err := setup.Addresses(from, "eth0")
	of := slices.IndexFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
	if err != nil || of < 0 {
		t.Fatalf("addresses %v: %v", addresses, err)
	}
	server := exec.Command("iperf3", "--server", "--one-off", "--forceflush")
	said, err := server.StdoutPipe()
	if err == nil {
		err = from.Do(server.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // the server has already ended, unless something failed
		_ = server.Wait()
	}()
	for lines := bufio.NewScanner(said); !strings.Contains(lines.Text(), "listening"); {
		if !lines.Scan() {
			t.Fatalf("iperf3 does not listen: %v", lines.Err())
		}
	}
	var counted struct {
		Start struct {
			Payload float64 `json:"tcp_mss_default"`
		} `json:"start"`
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	out := setuptest.In(t, to, "iperf3", "--client", addresses[of].Addr().String(), "--reverse", "--omit", "1", "--time", "2", "--json")
	if err := json.Unmarshal([]byte(out), &counted); err != nil || counted.Start.Payload == 0 {
		t.Fatalf("iperf3: %v: %s", err, out)
	}
	return counted.End.Received.Rate * 1514 / counted.Start.Payload
}

// TestBandwidth measures the rates of both directions by iperf3. Without limits, the rates must be
// far above the limits of this test. With limits, they must be within 5 % of the limits. The burst
// sizes are those that containerd and CRI-O give to the plugin. Source filters and host ports are
// also configured.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, asked string
		v6          bool
		to, from    float64 // bits per second
	}{
		{"IPv4 as containerd asks", `{"IngressRate": 50000000, "IngressBurst": 4294967295, "EgressRate": 20000000, "EgressBurst": 4294967295}`, false, 50e6, 20e6},
		{"IPv6 as CRI-O asks", `{"ingressRate": 20000000, "ingressBurst": 34359738359, "egressRate": 50000000, "egressBurst": 34359738359}`, true, 20e6, 50e6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual.with(object{
				"ipspoofchk": true, "ingressPolicy": "same-bridge", "capabilities": object{"bandwidth": true, "portMappings": true},
			}), "nft")
			outside := n.outside(true)
			c := n.containers(1)[0]
			before := setuptest.Dump(t)
			ways := []struct {
				name     string
				from, to *setup.Namespace
				limit    float64
			}{{"to the container", outside, c, tt.to}, {"from the container", c, outside, tt.from}}

			n.must("add", c)
			for _, w := range ways {
				if got := rate(t, w.from, w.to, tt.v6); got < 1.2*w.limit { // a limited rate is within 5 % of the limit
					t.Errorf("%s without a limit: %.1f Mbit/s: the test proves nothing", w.name, got/1e6)
				}
			}
			n.must("del", c)
			n.env = []string{`CAP_ARGS={"bandwidth": ` + tt.asked + `, "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp"}]}`}
			n.must("add", c)
			n.must("check", c)
			for _, w := range ways {
				got := 0.0
				for try := 0; try < 10 && got < 0.95*w.limit; try++ { // on a busy host the sender may get too little time
					got = rate(t, w.from, w.to, tt.v6)
					t.Logf("%s: %.2f of %.0f Mbit/s", w.name, got/1e6, w.limit/1e6)
				}
				if got < 0.95*w.limit || got > 1.05*w.limit {
					t.Errorf("%s: %.2f Mbit/s, want %.0f within 5 %%", w.name, got/1e6, w.limit/1e6)
				}
			}
			serve(t, c, 80)
			if got := ask(t, outside, "tcp", "192.0.2.1", 8080); got != "192.0.2.2" {
				t.Errorf("through the host port, the container sees client %q", got)
			}
			n.must("del", c)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// numbered matches the numbers in tc's output that the kernel assigns, such as the index of a
// filter. They differ from run to run.
var numbered = regexp.MustCompile(`\tindex \d+ ref .*|parent [^ ]+ |refcnt \d+`)

// shaping returns tc's output about the bandwidth limits of container number 1.
func shaping(t testing.TB) string {
	t.Helper()
	return numbered.ReplaceAllString(setuptest.Run(t, "tc", "qdisc", "show")+setuptest.Run(t, "tc", "filter", "show", "dev", portOf, "ingress"), "")
}

// TestBandwidthNumbers checks that tc shows the configured rates and bursts, including the largest
// and the smallest possible values.
func TestBandwidthNumbers(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	for _, tt := range []struct {
		asked    object
		want     []string
		wantNone bool // no IFB is wanted
	}{
		{limits, []string{"tbf 6276: dev " + portOf + " root  rate 20Mbit burst 100000b", "tbf 6276: dev " + ifbOf1 + " root  rate 10Mbit burst 50000b"}, false},
		{object{"IngressRate": 10e6, "IngressBurst": 1<<32 - 1}, []string{"rate 10Mbit burst 62500b lat 100ms"}, true},
		{object{"ingressRate": 10e6, "ingressBurst": 1}, []string{"rate 10Mbit burst 151"}, true}, // the smallest burst is one frame, 1518 bytes with a VLAN tag; tc rounds it
		{object{"ingressRate": 50e9, "ingressBurst": 1 << 62}, []string{"rate 50Gbit burst 312500000b lat 100ms"}, true},
		{object{"egressRate": 1000, "egressBurst": 1 << 40}, []string{"dev " + ifbOf1 + " root  rate 1Kbit burst 151", "Redirect to device " + ifbOf1}, false},
	} {
		conf := limited(single, tt.asked)
		a := on("ADD", 1, conf).run(t).ok(t)
		got := shaping(t)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: %q is not in\n%s", tt.asked, want, got)
			}
		}
		if strings.Contains(got, "ifb") == tt.wantNone {
			t.Errorf("%v: there is an IFB: %v", tt.asked, !tt.wantNone)
		}
		on("CHECK", 1, checking(conf, a)).run(t).ok(t)
		on("DEL", 1, single).run(t).ok(t)
	}
}

// TestBandwidthMistakes checks ADD's errors about invalid bandwidth limits.
func TestBandwidthMistakes(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	before := setuptest.Dump(t)
	for _, tt := range []struct {
		asked any
		want  string
	}{
		{object{"ingressRate": 10e6}, "runtimeConfig.bandwidth.ingressBurst: 0 is too small for runtimeConfig.bandwidth.ingressRate 10000000; set the bits"},
		{object{"EgressBurst": 10e6}, "runtimeConfig.bandwidth.egressRate: it is missing, and runtimeConfig.bandwidth.egressBurst is 10000000; set bits per second"},
		{object{"ingressRate": -1, "ingressBurst": 1}, "runtimeConfig.bandwidth.ingressRate: -1 is too small; set 1000 bits"},
		{object{"egressRate": 999, "egressBurst": 1}, "runtimeConfig.bandwidth.egressRate: 999 is too small"},
		{object{"egressRate": 1000, "egressBurst": -1}, "runtimeConfig.bandwidth.egressBurst: -1 is too small"},
		{object{"egressRate": "10M", "egressBurst": 1}, "runtimeConfig.bandwidth.egressRate: a JSON string instead of a number"},
		{[]int{1}, "runtimeConfig.bandwidth: a JSON array instead of an object"},
	} {
		conf := single.with(object{"runtimeConfig": object{"bandwidth": tt.asked}})
		if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 7 || !strings.Contains(f.Msg, tt.want) {
			t.Errorf("%v: got %+v, want code 7, %q", tt.asked, f, tt.want)
		}
		on("DEL", 1, conf).run(t).ok(t)
	}
	setuptest.Same(t, before, "refusals left traces")
}

// TestBandwidthDrift removes or changes one part of a container's bandwidth limits at a time, such
// as a queue or a filter. It checks that CHECK names the part and changes nothing, and that bvctl
// repair restores the part.
func TestBandwidthDrift(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"capabilities": object{"bandwidth": true}}), "nft")
	asked, err := json.Marshal(limits)
	if err != nil {
		t.Fatal(err)
	}
	n.env = []string{"CAP_ARGS=" + `{"bandwidth": ` + string(asked) + "}", "CNI_IFNAME=eth0"}
	c := n.containers(1)[0]
	n.must("add", c)
	name := regexp.MustCompile(`veth\w{11}`).FindString(setuptest.Run(t, "ip", "-o", "link", "show", "master", "br0"))
	names := strings.NewReplacer("PORT", name, "IFB", strings.Replace(name, "veth", "ifb", 1))
	show := func() string {
		return numbered.ReplaceAllString(setuptest.Run(t, "sh", "-c", names.Replace("tc qdisc show; tc filter show dev PORT ingress; ip link show IFB 2>&1 | grep -o ,UP || true")), "")
	}
	whole := show()
	for _, tt := range []struct{ name, spoil, want string }{
		{"the port's qdisc gone", "tc qdisc del dev PORT root", "limit of port PORT to the container: is none instead of 20000000 bit/s"},
		{"another qdisc on the port", "tc qdisc replace dev PORT root pfifo", "limit of port PORT to the container: is none instead"},
		{"another rate", "tc qdisc change dev PORT root tbf rate 1gbit burst 100000 limit 350000", "to the container: is 1000000000 bit/s"},
		{"another burst", "tc qdisc change dev PORT root tbf rate 20mbit burst 1mb limit 350000", "to the container: is 20000000 bit/s (burst 1048576 bytes"},
		{"another queue", "tc qdisc change dev IFB root tbf rate 10mbit burst 50000 limit 1mb", "from the container: is 10000000 bit/s"},
		{"the IFB's qdisc gone", "tc qdisc del dev IFB root", "from the container: is none instead of 10000000 bit/s (burst 50000 bytes, limit 175000 bytes)"},
		{"redirection gone", "tc filter del dev PORT ingress", "redirection from port PORT to IFB: is false"},
		{"ingress qdisc gone", "tc qdisc del dev PORT ingress", "redirection from port PORT to IFB: is false"},
		{"IFB gone", "ip link del IFB", "link IFB, which limits port PORT: missing"},
		{"IFB down", "ip link set IFB down", "IFB up: is false"},
		{"all gone", "tc qdisc del dev PORT root; tc qdisc del dev PORT ingress; ip link del IFB", "to the container: is none"},
	} {
		setuptest.Run(t, "sh", "-c", names.Replace(tt.spoil))
		before := show()
		if err := n.cnitool("check", c); err == nil || !strings.Contains(err.Error(), names.Replace(tt.want)) {
			t.Errorf("%s: CHECK: %v", tt.name, err)
		}
		if show() != before {
			t.Errorf("%s: CHECK changed something", tt.name)
		}
		if out, status := bvctl(t, "repair"); status != 0 || !strings.Contains(out, "restored bandwidth of port "+name) {
			t.Errorf("%s: bvctl repair: status %d, %s", tt.name, status, out)
		}
		if got := show(); got != whole {
			t.Errorf("%s: bvctl repair left\n%sof\n%s", tt.name, got, whole)
		}
		n.must("check", c)
		if !setuptest.Ping(t, c, "10.88.0.1") {
			t.Errorf("%s: after bvctl repair nothing passes", tt.name)
		}
	}
	n.must("del", c)
}

// TestBandwidthGone deletes the bridge port of a container with bandwidth limits. The IFB of the
// port remains. The test checks that DEL, GC and the next ADD of the attachment delete the IFB.
func TestBandwidthGone(t *testing.T) {
	t.Parallel()
	conf := limited(single, limits)
	newNode(t, single, "nft").containers(2)
	on("ADD", 2, limited(single, limits)).run(t).ok(t)
	before := setuptest.Dump(t)
	valid := func(names ...string) object {
		list := []object{}
		for _, name := range names {
			list = append(list, object{"containerID": name, "ifname": "eth0"})
		}
		return single.with(object{"cni.dev/valid-attachments": list})
	}
	for _, tt := range []struct {
		name string
		end  []call
	}{
		{"DEL", []call{on("DEL", 1, single)}},
		{"GC", []call{{verb: "GC", conf: valid("c2")}}},
		{"another GC first", []call{{verb: "GC", conf: valid("c1", "c2")}, on("DEL", 1, single)}},
		{"ADD", []call{on("ADD", 1, conf), on("DEL", 1, single)}},
	} {
		on("ADD", 1, conf).run(t).ok(t)
		setuptest.Run(t, "ip", "link", "del", portOf)
		if links := setuptest.Run(t, "ip", "-o", "link"); !strings.Contains(links, ifbOf1) {
			t.Fatalf("%s: the IFB was deleted with its port: the test proves nothing", tt.name)
		}
		for _, c := range tt.end {
			c.run(t).ok(t)
		}
		setuptest.Same(t, before, "%s left traces", tt.name)
	}
	call{verb: "GC", conf: valid("c1", "c2")}.run(t).ok(t)
	setuptest.Same(t, before, "GC took what it should not")
}

// TestBandwidthExisting checks bandwidth limits on a tap that another plugin has made: DEL removes
// the limits again. If the tap already has a qdisc that bridgeveth did not make, ADD fails and does
// not change this qdisc.
func TestBandwidthExisting(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	setuptest.Run(t, "sh", "-c", "ip tuntap add tap0 mode tap; ip link set tap0 up")
	show := func() string {
		return setuptest.Dump(t) + numbered.ReplaceAllString(setuptest.Run(t, "sh", "-c", "tc qdisc show dev tap0; tc filter show dev tap0 ingress"), "")
	}
	before := show()
	conf := behind(limited(single, limits), tap)
	a := on("ADD", 1, conf).run(t).ok(t)
	check := on("CHECK", 1, checking(conf, a))
	check.run(t).ok(t)
	shown := setuptest.Run(t, "sh", "-c", "tc qdisc show; tc filter show dev tap0 ingress")
	for _, want := range []string{"dev tap0 root refcnt 2 rate 20Mbit", "dev " + ifbOf1 + " root refcnt 2 rate 10Mbit", "Redirect to device " + ifbOf1} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	setuptest.Run(t, "tc", "qdisc", "del", "dev", "tap0", "root")
	if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, "limit of port tap0 to the container: is none") {
		t.Errorf("CHECK: %+v", f)
	}
	on("DEL", 1, single).run(t).ok(t)
	same := func(what string) {
		t.Helper()
		if diff := cmp.Diff(before, show()); diff != "" {
			t.Errorf("%s left traces (-before +after):\n%s", what, diff)
		}
	}
	same("DEL")
	on("ADD", 1, conf).run(t).ok(t)
	on("DEL", 1, single).run(t).ok(t)
	same("the second DEL")

	setuptest.Run(t, "sh", "-c", "tc qdisc add dev tap0 root handle 1: tbf rate 1gbit burst 1mb limit 1mb; tc qdisc add dev tap0 ingress; tc filter add dev tap0 ingress protocol ip pref 7 u32 match u32 1 1")
	before = show()
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 || !strings.Contains(f.Msg, "limit the rate of tap0") {
		t.Errorf("with a foreign qdisc: got %+v, want code 101", f)
	}
	same("a refused ADD")
	plain := behind(single, tap)
	on("ADD", 1, plain).run(t).ok(t)
	on("DEL", 1, single).run(t).ok(t)
	same("DEL without limits")
}

// TestBandwidthUnlimited checks that ADD makes no qdisc and no IFB if the runtime passes no limits,
// limits of zero, or null.
func TestBandwidthUnlimited(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	for _, conf := range []object{single, limited(single, object{"IngressRate": 0, "IngressBurst": 0, "EgressRate": 0, "EgressBurst": 0}), limited(single, nil)} {
		on("ADD", 1, conf).run(t).ok(t)
		if got := shaping(t); strings.Contains(got, "tbf") || strings.Contains(got, "ifb") || strings.Contains(got, "ingress") {
			t.Errorf("%v: there are limits:\n%s", conf["runtimeConfig"], got)
		}
		on("DEL", 1, conf).run(t).ok(t)
	}
}
