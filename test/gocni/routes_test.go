package gocni

import (
	"testing"

	gocni "github.com/containerd/go-cni"
	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestTwoDefaultRoutes attaches a container to two networks, each with a default route. It checks
// that the container then has the same default routes as with the reference plugins. CHECK must
// report the fault if one of the two IPv6 default routes is deleted.
func TestTwoDefaultRoutes(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		id, c, labels := n.container(1)
		routes := func(plugin, ipam string) (all string) {
			for i, name := range []string{"first", "second"} {
				n.configure(name, func(_, p, a object) {
					p["type"], a["type"], p["bridge"] = plugin, ipam, []string{"cni0", "cni1"}[i]
					a["ranges"] = [][][]object{
						{{{"subnet": "10.86.0.0/16"}}, {{"subnet": "fd86::/64"}}}, {{{"subnet": "10.96.0.0/16"}}, {{"subnet": "fd96::/64"}}},
					}[i]
				})
			}
			n.start(2)
			if _, err := n.SetupSerially(t.Context(), id, c.Path, labels); err != nil {
				t.Fatalf("%s: %v", plugin, err)
			}
			return setuptest.In(t, c, "ip", "route", "show", "default") + setuptest.In(t, c, "ip", "-6", "route", "show", "default")
		}
		want := routes("bridge", "host-local")
		if err := n.Remove(t.Context(), id, c.Path, labels); err != nil {
			t.Fatal(err)
		}
		setuptest.Run(t, "sh", "-c", "ip link delete cni0; ip link delete cni1")

		before := setuptest.Dump(t)
		if diff := cmp.Diff(want, routes("bridgeveth", "ipam-simple")); diff != "" {
			t.Errorf("(-reference +got):\n%s", diff)
		}
		checking, err := gocni.New(gocni.WithPluginConfDir(n.conf), gocni.WithPluginMaxConfNum(2), gocni.WithPluginDir(n.dirs), gocni.WithDefaultConf)
		if err != nil {
			t.Fatal(err)
		}
		check := func() error { return checking.Check(t.Context(), id, c.Path, labels) }
		if err := check(); err != nil {
			t.Errorf("check: %v", err)
		}
		setuptest.In(t, c, "ip", "-6", "route", "delete", "default", "via", "fd86::1", "dev", "eth0")
		if err := check(); err == nil {
			t.Error("CHECK does not report that one of the two routes is missing")
		}
		if err := n.Remove(t.Context(), id, c.Path, labels); err != nil {
			t.Error(err)
		}
		n.nothingLeft(before, "first", "second")

		if _, err := n.Setup(t.Context(), id, c.Path, labels); err != nil {
			t.Errorf("both at once: %v", err)
		}
		if err := check(); err != nil {
			t.Errorf("both at once: check: %v", err)
		}
		if err := n.Remove(t.Context(), id, c.Path, labels); err != nil {
			t.Error(err)
		}
	})
}
