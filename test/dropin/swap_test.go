package dropin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// container opens the network namespace of the container.
func (a *attachment) container() *setup.Namespace {
	a.t.Helper()
	ns, err := setup.OpenNamespace(a.runtime.NetNS)
	must(a.t, err)
	a.t.Cleanup(ns.Close)
	return ns
}

// TestSwap replaces the reference plugins by ours while a container is attached. If the reference
// plugins are kept beside ours, CHECK and DEL of this container must call the reference plugins,
// and nothing may be left. In any case, our plugins must not lease the container's address again.
func TestSwap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, dir string
		cleans    bool
	}{{"reference kept", kept, true}, {"program in another folder", linked, true}, {"reference gone", ours, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t)
			setuptest.Container(t, "c1")
			setuptest.Container(t, "c2")
			setuptest.Container(t, "c3")
			network := list("1.0.0", bridge, portmap, firewall)
			// The reference plugins make some rules and chains only once, and never remove them.
			// The attachment of c3 makes them here, before the test records the host's state.
			first := attach(t, reference, "c3", network, portMapping{HostPort: 7070, ContainerPort: 80, Protocol: "tcp"})
			first.mustAdd()
			must(t, first.cni.DelNetworkList(t.Context(), first.list, first.runtime))
			before := setuptest.Dump(t)
			attach(t, reference, "c1", network, web).mustAdd()

			old, fresh := attach(t, tt.dir, "c1", network, web), attach(t, tt.dir, "c2", network, portMapping{HostPort: 9090, ContainerPort: 80, Protocol: "tcp"})
			if err := old.check(); (err == nil) != tt.cleans {
				t.Errorf("CHECK of a container that the reference plugins attached: %v", err)
			}
			if got := addresses(fresh.mustAdd())[0]; got != "10.88.0.2/24" { // the container c1 has 10.88.0.3
				t.Errorf("the address of c2 is %s", got)
			}
			must(t, fresh.check())
			if !setuptest.Ping(t, old.container(), "10.88.0.2") {
				t.Error("the containers do not reach each other")
			}
			must(t, old.cni.DelNetworkList(t.Context(), old.list, old.runtime))
			must(t, fresh.check())
			must(t, fresh.del())
			left := setuptest.Run(t, "iptables-nft", "-t", "nat", "-S")
			if cleaned := !strings.Contains(left, "c1"); cleaned != tt.cleans {
				t.Errorf("its rules are gone: %v, want %v", cleaned, tt.cleans)
			}
			if tt.cleans {
				setuptest.Same(t, before, "it left traces")
			}
		})
	}
}

// addresses returns the addresses of a result.
func addresses(result object) (list []string) {
	for _, each := range result["ips"].([]any) {
		list = append(list, each.(map[string]any)["address"].(string))
	}
	return list
}

// TestBehindOthers checks portmap and firewall after the plugin ptp, which is not ours. They must
// call the kept reference plugins, and fail if no reference plugins are kept.
func TestBehindOthers(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	ptp := object{"type": "ptp", "ipam": hostLocal}
	for _, tt := range []struct {
		plugin object
		dir    string
	}{{portmap, ours}, {firewall, ours}, {portmap, kept}, {firewall, kept}} {
		a := attach(t, tt.dir, "c1", list("1.0.0", ptp, tt.plugin), web)
		_, err := a.add()
		if tt.dir == ours {
			refused(t, err, 7, "prevResult: bridgeveth has not made eth0")
		} else {
			must(t, err)
			must(t, a.check())
		}
		must(t, a.cni.DelNetworkList(t.Context(), a.list, a.runtime))
		if left := setuptest.Dump(t); strings.Contains(left, "c1") {
			t.Errorf("something of the container is left:\n%s", left)
		}
	}
}

// TestHostLocal checks our plugin host-local. It must not lease an address that the reference
// plugin host-local has reserved. Its leases must be in dataDir or, without this key, in
// /run/ipam-simple.
func TestHostLocal(t *testing.T) {
	t.Parallel()
	newNode(t)
	for _, c := range []string{"c1", "c2", "c3"} {
		setuptest.Container(t, c)
	}
	for _, dir := range []string{"", "/var/lib/elsewhere"} {
		ipam := object{"type": "host-local", "subnet": "10.88.0.0/24"}
		if dir != "" {
			ipam["dataDir"] = dir
		}
		conf := bridge.with(object{"ipam": ipam})
		add := func(programs, container string) string {
			result, err := call(t, filepath.Join(programs, "host-local"), "ADD", container, conf)
			must(t, err)
			return addresses(result)[0]
		}
		if first, second := add(reference, "c1"), add(ours, "c2"); first != "10.88.0.2/24" || second != "10.88.0.3/24" {
			t.Errorf("c1 has %s of the reference, and c2 %s of ours", first, second)
		}
		_, err := call(t, filepath.Join(ours, "host-local"), "DEL", "c1", conf)
		must(t, err)
		_, err = call(t, filepath.Join(ours, "host-local"), "DEL", "c2", conf)
		must(t, err)
		store := "/run/ipam-simple"
		if dir != "" {
			store = dir
		}
		if found, err := filepath.Glob(store + "/leases-*"); len(found) != 1 || err != nil {
			t.Errorf("leases are not in %s: %v, %v", store, found, err)
		}
	}
}

// TestOneProcess checks that bridge calls host-local in its own process, not as a program.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	newNode(t)
	setuptest.Container(t, "c1")
	wrapper := filepath.Join(t.TempDir(), "bridge")
	setuptest.WriteProgram(t, wrapper, "#!/bin/sh\nCNI_PATH="+ours+" exec strace -f -qq -o /run/trace -e trace=execve "+ours+"/bridge\n")
	// With other values of "forward", bridge may start programs that add rules.
	_, err := call(t, wrapper, "ADD", "c1", bridge.with(object{"forward": "none"}))
	must(t, err)
	trace, err := os.ReadFile("/run/trace")
	must(t, err)
	if strings.Count(string(trace), "execve") != 1 {
		t.Errorf("bridge started other programs:\n%s", trace)
	}
}
