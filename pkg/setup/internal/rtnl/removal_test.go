package rtnl_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDeleteStale checks that functions that delete a link do not delete a new link of the same
// name. The test looks up a link, deletes the link and creates the new link. Then the test calls
// each function with the old link. The function must succeed and keep the new link.
func TestDeleteStale(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	create := func() rtnl.Link {
		setuptest.Run(t, "ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
		l, err := rtnl.ByName(host.Namespace, "left")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	stale := create()
	setuptest.Run(t, "ip", "link", "delete", "left")
	renewed := create()
	for name, remove := range map[string]func() error{
		"RemoveLink":  func() error { return rtnl.RemoveLink(host.Namespace, stale) },
		"DeleteLink":  func() error { return rtnl.DeleteLink(host.Namespace, stale) },
		"DeleteLinks": func() error { return rtnl.DeleteLinks(host.Namespace, []rtnl.Link{stale}) },
	} {
		if err := remove(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := rtnl.ByIndex(host.Namespace, renewed.Index); err != nil {
			t.Errorf("%s deleted the new link: %v", name, err)
		}
	}
}

// TestRemoveLink checks that no process can find a link any more when RemoveLink returns. It reads
// /proc/net/dev, because a request to rtnetlink would wait until the kernel has finished the
// deletion.
func TestRemoveLink(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	for _, kind := range []string{"veth", "bridge"} {
		for range 20 {
			setuptest.Run(t, "ip", "link", "add", "doomed", "up", "type", kind)
			setuptest.Run(t, "ip", "address", "add", "10.7.0.1/16", "dev", "doomed")
			l, err := rtnl.ByName(host.Namespace, "doomed")
			if err == nil {
				err = rtnl.RemoveLink(host.Namespace, l)
			}
			if err != nil {
				t.Fatal(err)
			}
			links, err := os.ReadFile("/proc/thread-self/net/dev")
			if err != nil || strings.Contains(string(links), "doomed:") {
				t.Fatalf("%s after RemoveLink: %v\n%s", kind, err, links)
			}
		}
	}
}
