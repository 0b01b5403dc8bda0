package cnitool

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// dockerCommand returns a command that starts the program dockerd from the folder bin. It skips the
// test if dockerd cannot run.
func dockerCommand(t *testing.T, bin string, args ...string) *exec.Cmd {
	t.Helper()
	if why := harness.MissingDocker(bin); why != "" {
		t.Skip("LISTED SKIP: " + why)
	}
	return harness.DockerCommand(bin, args...)
}

// dockerd starts the program dockerd from the folder bin in the test's host. The program ends with
// the test, or when stop is called.
func dockerd(t *testing.T, bin string, args ...string) (stop func()) {
	t.Helper()
	end, err := harness.StartDocker(dockerCommand(t, bin, args...))
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestDocker checks that containers reach each other and the outside on a host with dockerd.
// dockerd switches forwarding on and sets the policy of FORWARD to DROP.
func TestDocker(t *testing.T) {
	t.Parallel()
	for release, bin := range map[string]string{
		"of the host": os.Getenv("DOCKER_BIN"),
		"trixie":      "../../.cache/docker/trixie/bin", // Docker 26
		"sid":         "../../.cache/docker/sid/bin",    // Docker 28 or later
		"moby":        "../../.cache/docker/moby/bin",   // Docker 29
	} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			bin, err := filepath.Abs(bin)
			if err != nil {
				t.Fatal(err)
			}
			testDocker(t, bin)
		})
	}
}

func testDocker(t *testing.T, bin string) {
	n := newNode(t, single.with(object{"forward": "none"}))
	stop := dockerd(t, bin)
	if got := setuptest.Run(t, "iptables", "-S", "FORWARD"); !strings.Contains(got, "-P FORWARD DROP") {
		t.Fatalf("dockerd has not set the policy:\n%s", got)
	}
	before := sortedLines(setuptest.Dump(t))
	c := n.containers(3)

	n.must("add", c[0], c[1])
	if setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Fatal(`the ping passes with "forward": "none"`)
	}
	n.configure(single)
	n.must("add", c[2])
	if !setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error(`the ping is dropped with "forward": "iptables"`)
	}
	placed := func(when string) {
		t.Helper()
		rules := setuptest.Run(t, "iptables", "-S", "FORWARD")
		ours := strings.Index(rules, "-j BRIDGEVETH-FORWARD")
		found := 0
		// DOCKER-ISOLATION-STAGE-1 exists up to Docker 27. From 28.0.1 on, DOCKER-FORWARD replaces
		// it.
		for _, docker := range []string{"-j DOCKER-USER", "-j DOCKER-ISOLATION-STAGE-1", "-j DOCKER-FORWARD"} {
			switch at := strings.Index(rules, docker); {
			case at > ours:
				t.Errorf("%s: our jump is not after %q:\n%s", when, docker, rules)
			case at >= 0:
				found++
			}
		}
		if ours < 0 || found != 2 {
			t.Errorf("%s: jumps are missing:\n%s", when, rules)
		}
	}
	placed("at first")

	stop()
	stop = dockerd(t, bin)
	placed("after a restart of dockerd")
	if !setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("the ping is dropped after a restart of dockerd")
	}
	for _, wiped := range []string{"iptables -F FORWARD", "iptables -F"} {
		stop()
		setuptest.Run(t, "sh", "-c", wiped)
		stop = dockerd(t, bin)
		if setuptest.Ping(t, c[0], "10.88.0.3") {
			t.Errorf("%s: the ping passes: the test proves nothing", wiped)
		}
		if out, status := bvctl(t, "repair"); status != 0 || !setuptest.Ping(t, c[0], "10.88.0.3") {
			t.Errorf("%s, a restart of dockerd, a repair: status %d, the ping is dropped: %s", wiped, status, out)
		}
		placed("after " + wiped)
	}
	setuptest.Run(t, "iptables", "-I", "DOCKER-USER", "-d", "10.88.0.3", "-j", "DROP")
	if setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("the administrator's DROP is bypassed")
	}
	setuptest.Run(t, "iptables", "-D", "DOCKER-USER", "-d", "10.88.0.3", "-j", "DROP")

	n.must("del", c...)
	if diff := cmp.Diff(before, sortedLines(setuptest.Dump(t))); diff != "" {
		t.Errorf("DEL left traces (-before +after):\n%s", diff)
	}
}

// TestDockerNFTables runs bridgeveth beside a dockerd with the backend nftables. Such a dockerd does
// not start before forwarding is on, which the first ADD switches on. The policy DROP of iptables is
// left, as after a change of the backend.
func TestDockerNFTables(t *testing.T) {
	n := newNode(t, single, "nft")
	c := n.containers(2)
	bin, err := filepath.Abs("../../.cache/docker/moby/bin")
	if err != nil {
		t.Fatal(err)
	}
	const backend = "--firewall-backend=nftables"
	out, err := dockerCommand(t, bin, backend).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "IPv4 forwarding is disabled") {
		t.Errorf("before ADD, dockerd ends with %v:\n%s", err, out)
	}
	n.must("add", c[0])
	stop := dockerd(t, bin, backend)
	table := func() string { return setuptest.Run(t, "nft", "-s", "list", "table", "ip", "docker-bridges") }
	before := table()
	n.must("add", c[1])
	passes := func(when string) {
		t.Helper()
		if !setuptest.Ping(t, c[0], "10.88.0.3") {
			t.Errorf("%s: the ping is dropped", when)
		}
		n.must("check", c...)
	}
	passes("after ADD")
	stop()
	dockerd(t, bin, backend)
	passes("after a restart of dockerd")
	n.must("del", c...)
	if diff := cmp.Diff(before, table()); diff != "" {
		t.Errorf("Docker's table (-before +after):\n%s", diff)
	}
}

// sortedLines sorts the lines of a dump, because a dockerd that is started again makes its chains
// in another order.
func sortedLines(dump string) []string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return lines
}
