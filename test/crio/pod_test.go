package crio

import (
	"strings"
	"sync"
	"testing"

	"github.com/cri-o/ocicni/pkg/ocicni"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestPods starts and removes two pods in each CNI version. It checks that CHECK succeeds right
// after ADD, and that the pods reach each other.
func TestPods(t *testing.T) {
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} { // 0.3.1 has no CHECK
		t.Run(v, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t, version(v))
				before := setuptest.Dump(t)
				pods := n.pods(2)
				results, err := n.GetPodNetworkStatus(pods[1])
				if err != nil || len(results) != 1 || results[0].Result.Version() != v {
					t.Errorf("status of a pod: %+v, %v", results, err)
				}
				for _, to := range []string{"10.87.0.3", "fd87::3"} {
					if !n.ping(pods[0], to) {
						t.Errorf("no answer from %s", to)
					}
				}
				n.down(pods...)
				n.down(pods...) // CRI-O may repeat a DEL
				n.nothingLeft(before, "the end of pods left traces")
			})
		})
	}
}

// TestAllArguments passes all arguments that CRI-O may pass for a pod. It checks that bridgeveth
// uses the arguments that it supports, and ignores the others.
func TestAllArguments(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t, func(_, plugin, _ object) {
			plugin["capabilities"] = object{"cgroupPath": true, "aliases": true, "ipRanges": true, "io.kubernetes.cri.pod-annotations": true}
		})
		before := setuptest.Dump(t)
		p := n.pod(1)
		p.Aliases = map[string][]string{"crio": {"web"}}
		p.RuntimeConfig = map[string]ocicni.RuntimeConfig{"crio": {
			IP: "10.87.0.77", MAC: "02:00:00:00:00:77", CgroupPath: "/kubepods.slice/pod1",
			PodAnnotations: &map[string]string{"kubernetes.io/config.source": "api"},
		}}
		result, err := n.up(p)
		if err != nil {
			t.Fatal(err)
		}
		inside := result.Interfaces[len(result.Interfaces)-1]
		if inside.Mac != "02:00:00:00:00:77" || inside.Sandbox != p.NetNS || len(result.IPs) != 2 || result.IPs[0].Address.String() != "10.87.0.77/16" {
			t.Errorf("interface %+v, addresses %v", inside, result.IPs)
		}
		n.down(p)
		n.nothingLeft(before, "the end of a pod left traces")
	})
}

// TestPodsAtOnce starts and removes twenty pods in parallel. It checks that no address is leased
// twice, and that nothing is left.
func TestPodsAtOnce(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		before := setuptest.Dump(t)
		var pods []ocicni.PodNetwork
		for i := range 20 {
			pods = append(pods, n.pod(i+1))
		}
		atOnce := func(do func(ocicni.PodNetwork) error) {
			t.Helper()
			var all sync.WaitGroup
			for _, p := range pods {
				all.Go(func() {
					if err := do(p); err != nil {
						t.Errorf("%s: %v", p.Name, err)
					}
				})
			}
			all.Wait()
		}
		addresses := make(chan string, 2*len(pods))
		atOnce(func(p ocicni.PodNetwork) error {
			result, err := n.up(p)
			if err != nil {
				return err
			}
			for _, ip := range result.IPs {
				addresses <- ip.Address.IP.String()
			}
			return nil
		})
		close(addresses)
		different := map[string]bool{}
		for a := range addresses {
			different[a] = true
		}
		if len(different) != 40 {
			t.Errorf("%d different addresses, want 40", len(different))
		}
		atOnce(func(p ocicni.PodNetwork) error { return n.TearDownPod(p) })
		n.nothingLeft(before, "20 at once left traces")
	})
}

// TestPodAddresses checks that CRI-O gets a pod's addresses after a restart: CRI-O reads them from
// the result of CHECK. After a flush of the rules, CHECK fails, so CRI-O gets no addresses until
// the rules are restored.
func TestPodAddresses(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		p := n.pods(1)[0]
		if out := setuptest.Run(t, programs+"/bvctl", "leases", "--conf-dir", n.conf); strings.Count(out, "shop/web-1") != 2 {
			t.Errorf("bvctl leases does not name the pod:\n%s", out)
		}
		n.configure(func(_, plugin, _ object) { plugin["mtu"] = 1400 }) // CHECK compares with the configuration at the time of ADD
		n.start(programs)
		look := func() error { _, err := n.GetPodNetworkStatus(p); return err }
		if err := look(); err != nil {
			t.Errorf("after a start: %v", err)
		}
		setuptest.Run(t, "sh", "-c", "iptables -F; nft flush table ip bridgeveth")
		if err := look(); err == nil || !strings.Contains(err.Error(), "masquerade") || !strings.Contains(err.Error(), "FORWARD") {
			t.Errorf("without rules: %v", err)
		}
		setuptest.Run(t, programs+"/bvctl", "repair", "--conf-dir", n.conf)
		if err := look(); err != nil {
			t.Errorf("after bvctl repair: %v", err)
		}
		n.down(p)
	})
}
