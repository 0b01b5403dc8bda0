package cnitool

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

const securityPage = "../../docs/security.md"

// rich is a network with most kinds of kernel objects. It has no VLAN, because some kernels have no
// VLAN filtering.
var rich = dual.with(object{
	"fastPath": "auto", "ingressPolicy": "isolated",
	"runtimeConfig": object{
		"ips":          []string{"10.88.0.9", "fd88::9"},
		"portMappings": []object{{"hostPort": 80, "containerPort": 80}, {"hostPort": 81, "containerPort": 81, "protocol": "udp"}},
		"bandwidth":    object{"ingressRate": 1000000, "ingressBurst": 1000000, "egressRate": 1000000, "egressBurst": 1000000},
	},
})

// linkNumber matches the number of a link in a dump. Each new link has another number.
var linkNumber = regexp.MustCompile(`(?m)^\d+: |@if\d+`)

// life attaches and checks container c1 twice. DEL ends the first attachment, and GC ends the second
// one. before is a command that runs the plugin. dump is the state of the host while the container
// is attached. failed has the error of each failed call.
func life(t *testing.T, program string, conf object, before ...string) (dump string, failed []string) {
	t.Helper()
	run := func(c call) answer {
		c.program, c.before = program, before
		a := c.run(t)
		if a.err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v: %s%s", c.verb, a.err, a.stdout, a.stderr))
		}
		return a
	}
	for _, end := range []call{on("DEL", 1, conf), {verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": []object{}})}} {
		if added := run(on("ADD", 1, conf)); added.err == nil {
			run(on("CHECK", 1, conf.with(object{"prevResult": json.RawMessage(added.stdout)})))
		}
		dump = linkNumber.ReplaceAllString(setuptest.Dump(t), "")
		run(on("STATUS", 1, conf))
		run(end)
	}
	return dump, failed
}

// TestCapabilities reads the table of capabilities in docs/security.md. For each row, it runs the
// program with exactly the listed capabilities, and checks that the program does the same as with
// all capabilities. It then takes away one capability at a time, and checks that a call fails.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(securityPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		row, flavour, program string
		conf                  object
	}{
		{"bridgeveth", "nft", "bridgeveth", rich},
		{"bridgeveth, if the host has tables of iptables-legacy", "legacy", "bridgeveth", rich},
		{"ipam-simple as a program", "nft", "ipam-simple", rich.with(object{"type": "ptp"})},
	} {
		t.Run(tt.row, func(t *testing.T) {
			row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(tt.row) + ` \| (.*?) \|`).FindSubmatch(page)
			if row == nil {
				t.Fatalf("%s has no row %q", securityPage, tt.row)
			}
			var listed []string
			for _, m := range regexp.MustCompile("`CAP_([A-Z_]+)`").FindAllSubmatch(row[1], -1) {
				listed = append(listed, "+"+strings.ToLower(string(m[1])))
			}
			newNode(t, rich, tt.flavour).containers(1)
			exactly := func(capabilities ...string) (string, []string) {
				return life(t, tt.program, tt.conf, "setpriv", "--inh-caps=-all", "--bounding-set="+strings.Join(append([]string{"-all"}, capabilities...), ","))
			}
			want, failed := life(t, tt.program, tt.conf)
			if len(failed) > 0 {
				t.Fatalf("with all capabilities: %s", failed)
			}
			got, failed := exactly(listed...)
			if diff := cmp.Diff(want, got); len(failed) > 0 || diff != "" {
				t.Errorf("with %s: %s (-all capabilities +these):\n%s", listed, failed, diff)
			}
			for i, one := range listed {
				if _, failed := exactly(slices.Delete(slices.Clone(listed), i, i+1)...); len(failed) == 0 {
					t.Errorf("without %s, no call fails", one)
				}
				life(t, tt.program, tt.conf) // removes what the failed calls have left
			}
		})
	}
}

// runtimeCalls are the system calls that the Go runtime makes by itself. Which of them it makes
// depends on the time and on the release of Go, so the test does not compare them.
var runtimeCalls = strings.Fields(`arch_prctl clock_gettime clone close epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group
	fcntl futex getpid getrandom gettid madvise mincore mmap munmap nanosleep openat prctl prlimit64 read restart_syscall rt_sigaction
	rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sigaltstack tgkill timer_create timer_delete timer_settime uname write`)

// started matches a line of strace's output in which a process starts a program.
var started = regexp.MustCompile(`(?m)^(\d+) +execve\("([^"]*)"`)

// TestSystemCalls traces the plugins with strace, and compares their system calls with the lists in
// testdata/syscalls. It leaves out the system calls of the programs that the plugins start.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("LISTED SKIP: the lists are for amd64")
	}
	calls := map[string]map[string]bool{"bridgeveth": {}, "ipam-simple": {}}
	for _, tt := range []struct {
		program, flavour string
		conf             object
	}{
		{"bridgeveth", "nft", rich},
		{"bridgeveth", "legacy", single},
		{"ipam-simple", "nft", rich.with(object{"type": "ptp", "ipam": dual["ipam"].(object).with(object{"sticky": "1h"})})},
	} {
		t.Run(tt.program+" "+tt.flavour, func(t *testing.T) {
			newNode(t, tt.conf, tt.flavour).containers(2)
			record(t, "c2")
			trace := traceLife(t, tt.program, tt.conf)
			other := map[string]bool{} // processes that run another program
			for line := range strings.Lines(trace) {
				if m := started.FindStringSubmatch(line); m != nil {
					other[m[1]] = m[2] != filepath.Join(programs, tt.program)
				}
				process, rest, _ := strings.Cut(line, " ")
				name, _, isCall := strings.Cut(strings.TrimSpace(rest), "(")
				// strace writes "???" for a thread that ended before strace could read the number of its
				// system call (stub_sysent in src/syscall.c). An unknown number is syscall_0x…
				if isCall && !other[process] && name != "???" && !strings.ContainsAny(name, " <") {
					calls[tt.program][name] = true
				}
			}
		})
	}
	for program, names := range calls {
		for _, name := range runtimeCalls {
			delete(names, name)
		}
		golden(t, "testdata/syscalls/"+program, strings.Join(slices.Sorted(maps.Keys(names)), "\n")+"\n")
	}
}

// TestStartedPrograms compares the programs that the plugin starts with the table in
// docs/security.md. None of them is a shell.
func TestStartedPrograms(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(securityPage)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	_, table, _ := strings.Cut(string(page), "| program | when |")
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)`").FindAllStringSubmatch(table, -1) {
		want = append(want, m[1])
	}
	got := map[string]bool{}
	for _, tt := range []struct {
		rules, flavour string
		conf           object
	}{
		{"true", "legacy", dual},
		{"nft add table inet firewalld", "nft", dual}, // the plugin asks firewalld by bvctl if this table exists
		{"true", "nft", single.with(object{"ipam": object{"type": "host-local", "subnet": "10.88.0.0/24"}})},
		// This pool has no address in a block of the host, so the plugin starts bridgeveth-pool.
		{
			"mount -t tmpfs none /usr/local/sbin; ln -s /bin/true /usr/local/sbin/bridgeveth-pool", "nft",
			single.with(object{"ipam": object{"type": "ipam-simple", "subnet": "10.88.0.0/24", "pool": object{"etcd": object{"endpoints": []string{"http://127.0.0.1:2379"}}}}}),
		},
	} {
		newNode(t, tt.conf, tt.flavour).containers(1)
		setuptest.Run(t, "sh", "-c", tt.rules)
		for _, m := range started.FindAllStringSubmatch(traceLife(t, "bridgeveth", tt.conf, "-e", "trace=execve"), -1) {
			got[filepath.Base(m[2])] = true
		}
	}
	delete(got, "bridgeveth")
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("programs (-docs/security.md +started):\n%s", diff)
	}
}

// record writes a record of libcni about an attachment of a container, whose address ipam-simple then
// takes over.
func record(t *testing.T, container string) {
	t.Helper()
	content, err := json.Marshal(object{
		"containerId": container, "ifName": "eth0", "networkName": "net", "netns": "/run/netns/" + container,
		"result": object{"cniVersion": "1.1.0", "ips": []object{{"address": "10.88.0.99/24"}}},
	})
	if err == nil {
		err = os.MkdirAll("/var/lib/cni/results", 0o700)
	}
	if err == nil {
		err = os.WriteFile("/var/lib/cni/results/net-"+container+"-eth0", content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// traceLife runs life with strace and returns strace's output. Errors of the plugin are allowed,
// because the plugin also makes system calls and starts programs before it fails.
func traceLife(t *testing.T, program string, conf object, options ...string) string {
	t.Helper()
	life(t, program, conf, append([]string{"strace", "-f", "-qq", "-A", "-o", "/run/trace"}, options...)...)
	trace, err := os.ReadFile("/run/trace")
	if err != nil {
		t.Fatal(err)
	}
	return string(trace)
}
