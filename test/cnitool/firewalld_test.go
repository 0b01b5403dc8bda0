package cnitool

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// firewalld starts the firewalld of a Debian release in the test's host. It skips the test if the
// program is missing. stopBus ends the D-Bus daemon of firewalld.
func firewalld(t *testing.T, release string) (stopBus func()) {
	t.Helper()
	if why := harness.MissingFirewalld(release); why != "" {
		t.Skip("LISTED SKIP: " + why)
	}
	_, stopBus = harness.Firewalld(t, release)
	return stopBus
}

// TestFirewalld checks which packets of containers pass on a host with firewalld. Without settings
// for containers, firewalld rejects most of them. If an administrator only adds the bridge to a
// zone, packets from outside still do not pass. With bridgeveth's zone and policy, all packets
// pass, also after a reload of firewalld and a repair.
func TestFirewalld(t *testing.T) {
	t.Parallel()
	for _, release := range []string{"bookworm", "trixie"} { // firewalld 1.3 and 2.3
		t.Run(release, func(t *testing.T) { t.Parallel(); testFirewalld(t, release) })
	}
}

func testFirewalld(t *testing.T, release string) {
	w := newWorld(t, "")
	firewalld(t, release)
	cmd := func(args ...string) { t.Helper(); setuptest.Run(t, "firewall-cmd", args...) }
	blocked := func(when string, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, w.blocked(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: blocked (-want +got):\n%s", when, diff)
		}
	}
	w.add(dual.with(object{"forward": "none"}))
	// Packets to published ports pass, because firewalld itself accepts them.
	rejected := both("sibling", "out", "in")
	blocked("without us", rejected)
	cmd("--zone=trusted", "--add-interface=br0")
	blocked("with a zone alone", both("in"))
	cmd("--zone=trusted", "--remove-interface=br0")
	w.must("del", w.c...)

	for _, forward := range []string{"auto", "firewalld"} {
		w.add(dual.with(object{"forward": forward}))
		blocked(forward, nil)
		w.must("check", w.c[1])
		cmd("--policy=bridgeveth-in", "--add-rich-rule=rule family=ipv4 source address=192.0.2.2 drop")
		blocked("with a rule of the administrator's", []string{"in"})
		cmd("--reload")
		blocked("after a reload", rejected)
		if err := w.cnitool("check", w.c[1]); err == nil || !strings.Contains(err.Error(), "br0 in zone bridgeveth of firewalld: missing") {
			t.Errorf("CHECK after a reload: %v", err)
		}
		if out, status := bvctl(t, "repair"); status != 0 || !strings.Contains(out, "restored br0 in zone bridgeveth of firewalld") {
			t.Errorf("repair: status %d: %s", status, out)
		}
		blocked("after a repair", nil)
		cmd("--reload")
		more := w.containers(3)[2]
		w.must("add", more)
		blocked("after the next ADD", nil)
		// This command deletes all tables except firewalld's, as "nft flush ruleset" does if
		// firewalld owns its table. The test cannot use "nft flush ruleset" itself, because the
		// host's nft may be too old for table owners.
		setuptest.Run(t, "sh", "-c", "nft list tables | grep -v 'inet firewalld' | while read table; do nft delete $table; done")
		blocked("after a flush", both("published"))
		if out, status := bvctl(t, "repair"); status != 0 {
			t.Errorf("repair after a flush: status %d: %s", status, out)
		}
		blocked("after a flush and a repair", nil)
		stopWatch := harness.Daemon(t, filepath.Join(programs, "bvctl"), "repair", "--watch", "--conf-dir", "/run/net.d")
		cmd("--complete-reload")
		harness.Await(t, "all to pass again after a complete reload", func() bool { return len(w.blocked()) == 0 })
		stopWatch()
		w.must("del", append(w.c, more)...)
		if out := setuptest.Run(t, "firewall-cmd", "--zone=bridgeveth", "--list-interfaces"); strings.TrimSpace(out) != "" {
			t.Errorf("left in the zone: %s", out)
		}
	}
	noLeases(t)

	// An administrator's choice of the zone has precedence.
	w.must("add", w.c[0])
	cmd("--zone=bridgeveth", "--change-interface=br0")
	cmd("--zone=drop", "--change-interface=br0")
	w.must("add", w.c[1])
	if out := setuptest.Run(t, "firewall-cmd", "--get-zone-of-interface=br0"); strings.TrimSpace(out) != "drop" {
		t.Errorf("the administrator's zone was changed to %s", out)
	}
}

// TestFirewalldStrict checks that ADD fails if firewalld would block the host port
// (StrictForwardPorts), and that the error gives this reason.
func TestFirewalldStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	firewalld(t, "trixie")
	w.add(dual.with(object{"forward": "none"}))
	setuptest.Run(t, "sed", "-i", "s/^StrictForwardPorts=.*/StrictForwardPorts=yes/", "/etc/firewalld/firewalld.conf")
	setuptest.Run(t, "sh", "-c", "cp -r ../../dist/firewalld/* /etc/firewalld/")
	setuptest.Run(t, "firewall-cmd", "--reload")
	if got := setuptest.Run(t, "firewall-cmd", "--info-policy=bridgeveth-in"); !strings.Contains(got, "target: ACCEPT") {
		t.Errorf("the policy of dist: %s", got)
	}
	if diff := cmp.Diff(everyWay, w.blocked()); diff != "" {
		t.Fatalf("blocked without us (-want +got):\n%s", diff)
	}
	w.must("del", w.c...)
	mapping := object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
	f := on("ADD", 1, publishing(dual, mapping)).run(t).failed(t)
	if !strings.Contains(f.Msg, "StrictForwardPorts=no") {
		t.Errorf("%+v", f)
	}
	noLeases(t)
	on("ADD", 1, dual).run(t).ok(t)
	on("DEL", 1, dual).run(t).ok(t)
}

// TestFirewalldMissing checks ADD's error if ADD cannot talk to firewalld. ADD runs bvctl for this
// purpose. The cases are: firewalld does not run, bvctl is not installed, or D-Bus is stopped. It also
// checks that DEL succeeds if firewalld answers with an error.
func TestFirewalldMissing(t *testing.T) {
	t.Parallel()
	newNode(t, dual).containers(1)
	program := ""
	refused := func(forward, want string) {
		t.Helper()
		before := setuptest.Dump(t)
		add := on("ADD", 1, dual.with(object{"forward": forward}))
		add.program = program
		f := add.run(t).failed(t)
		if f.Code != plugin.CodeProgram || !strings.Contains(f.Msg, want) {
			t.Errorf("%s: %+v, want %q", forward, f, want)
		}
		setuptest.Same(t, before, "the refused ADD left traces")
		noLeases(t)
	}
	refused("firewalld", `firewalld cannot be asked: it does not run here with its nf_tables backend; start it, or choose another "forward"`)
	stopBus := firewalld(t, "bookworm")
	setuptest.Run(t, "cp", "--parents", programs+"/bridgeveth", "/run")
	program = strings.Repeat("../", 20) + "run" + programs + "/bridgeveth" // a copy of the plugin in a folder without bvctl
	refused("auto", "bvctl is neither in the plugin's folder nor in PATH, /usr/sbin, /sbin or /usr/local/sbin; install bvctl")
	program = ""
	on("ADD", 1, dual).run(t).ok(t)
	// firewalld then cannot delete its rules for the bridge.
	setuptest.Run(t, "nft", "flush ruleset; add table inet firewalld")
	on("DEL", 1, dual).run(t).ok(t)
	noLeases(t)
	stopBus()
	refused("auto", "connect to the system bus (D-Bus)")
}

// TestFirewalldStopped checks that `bvctl firewalld strict` fails if firewalld does not run: it
// then cannot know whether firewalld blocks host ports.
func TestFirewalldStopped(t *testing.T) {
	t.Parallel()
	newNode(t, dual)
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("LISTED SKIP: no dbus-daemon; run make test where Debian's packages can be had")
	}
	harness.StartBus(t)
	out, err := exec.Command(filepath.Join(programs, "bvctl"), "firewalld", "strict").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "StrictForwardPorts") {
		t.Errorf("%v: %s", err, out)
	}
}
