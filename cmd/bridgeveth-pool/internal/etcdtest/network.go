package etcdtest

import (
	"fmt"
	"os/exec"
	"strconv"
)

// bridge returns the name of the bridge that connects the members of a cluster that are apart.
func (c *Cluster) bridge() string { return fmt.Sprint("etcd", c.o.Port) }

// apart returns an address of the bridge's subnet, which no other cluster has.
func (c *Cluster) apart(i int) string {
	return fmt.Sprintf("10.%d.%d.%d", c.o.Port>>8, c.o.Port&255, i+1)
}

// build makes the bridge.
func (c *Cluster) build() {
	c.t.Helper()
	c.ip("link", "add", c.bridge(), "type", "bridge")
	c.t.Cleanup(func() { c.ip("link", "del", c.bridge()) })
	c.ip("addr", "add", c.apart(len(c.members))+"/24", "dev", c.bridge())
	c.ip("link", "set", c.bridge(), "up")
}

// plug connects the network namespace of a member to the bridge.
func (c *Cluster) plug(i int) {
	c.t.Helper()
	c.links++ // the kernel removes the last link of the member only some time after its end
	c.ports[i] = fmt.Sprintf("%s-%d", c.bridge(), c.links)
	c.ip("link", "add", c.ports[i], "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(c.members[i].Process.Pid))
	c.ip("link", "set", c.ports[i], "master", c.bridge(), "up")
	c.inside(i, "addr", "add", c.address(i)+"/24", "dev", "eth0")
	c.inside(i, "link", "set", "eth0", "up")
	c.inside(i, "link", "set", "lo", "up")
}

// Cut cuts a member off from the other members. Clients still reach it.
func (c *Cluster) Cut(i int) { c.routes("add", i) }

// Join ends Cut.
func (c *Cluster) Join(i int) { c.routes("del", i) }

// routes adds or deletes routes that drop the packets of a member to the other members.
func (c *Cluster) routes(verb string, i int) {
	c.t.Helper()
	for other := range c.members {
		if other != i {
			c.inside(i, "route", verb, "blackhole", c.address(other))
		}
	}
}

// Unplug cuts a member off from all other members and clients. Its connections are not closed.
func (c *Cluster) Unplug(i int) { c.ip("link", "set", c.ports[i], "down") }

// Plug ends Unplug.
func (c *Cluster) Plug(i int) { c.ip("link", "set", c.ports[i], "up") }

// ip runs ip(8).
func (c *Cluster) ip(args ...string) { c.run("ip", args) }

// inside runs ip(8) in the network namespace of a member.
func (c *Cluster) inside(i int, args ...string) {
	c.run("nsenter", append([]string{"-n", "-t", strconv.Itoa(c.members[i].Process.Pid), "ip"}, args...))
}

func (c *Cluster) run(program string, args []string) {
	c.t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
}
