package setup_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// links returns the number of links of a namespace whose names begin with prefix.
func links(t *testing.T, in *setup.Namespace, prefix string) int {
	t.Helper()
	return strings.Count(setuptest.In(t, in, "ip", "-o", "link"), ": "+prefix)
}

// TestUnplug checks that no process can see either end of a port any more when Unplug returns,
// although the kernel has not finished the deletion. The test deletes one port first, then many
// ports at the same time.
func TestUnplug(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	const count = 12
	var ports []*setup.Port
	for i := range count {
		p := port(t, i+1, setup.ForwardNone)
		if _, err := host.AttachPort(p); err != nil {
			t.Fatal(err)
		}
		ports = append(ports, p)
	}
	if _, err := host.Unplug(ports[0].Attachment); err != nil {
		t.Fatal(err)
	}
	if links(t, ports[0].Container, "eth0") != 0 || links(t, host.Namespace, ports[0].Port()) != 0 {
		t.Error("an end of the pair is left")
	}
	if _, err := host.Unplug(ports[0].Attachment); err != nil {
		t.Errorf("Unplug of a deleted port: %v", err)
	}
	var group sync.WaitGroup
	for _, p := range ports[1:] {
		group.Go(func() {
			err := withOwnHost(host, func(own *setup.Host) error {
				_, err := own.Unplug(p.Attachment)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := links(t, host.Namespace, "veth"); n != 0 {
		t.Errorf("%d ports are left", n)
	}
}

// TestCollectMany checks that Collect can delete 300 links at once. The receive buffer of a socket
// has no room for 300 answers of the kernel, so Collect must not ask for an answer to each request.
func TestCollectMany(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	inside := setuptest.Container(t, "many")
	const count = 300
	var script strings.Builder
	script.WriteString("link add br0 type bridge\nlink add other type veth peer name another\nlink set other master br0\n")
	for i := range count {
		a := setup.Attachment{Network: "net", Container: fmt.Sprintf("c%d", i), Interface: "eth0"}
		fmt.Fprintf(&script, "link add %s type veth peer name p%d netns many\nlink set %s master br0 alias %s\n", a.Port(), i, a.Port(), a)
	}
	batch := exec.Command("ip", "-batch", "-")
	batch.Stdin, batch.Stderr = strings.NewReader(script.String()), os.Stderr
	if err := batch.Run(); err != nil {
		t.Fatal(err)
	}
	keep := setup.Attachment{Network: "net", Container: "c7", Interface: "eth0"}
	if err := host.Collect("net", "br0", []setup.Attachment{keep}); err != nil {
		t.Fatal(err)
	}
	if n := links(t, inside, "p"); n != 1 || links(t, host.Namespace, keep.Port()) != 1 || links(t, host.Namespace, "other") != 1 {
		t.Errorf("%d containers are left:\n%s", n, setuptest.Run(t, "ip", "-o", "link"))
	}
}
