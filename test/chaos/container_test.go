package chaos

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// ifname is the name of the interface in each container.
const ifname = "eth0"

// container is a container of a worker. Its name is its container ID and the name of its network
// namespace.
type container struct {
	name    string
	worker  *worker
	network *network
	ns      *setup.Namespace
	port    int  // host port, or 0
	living  bool // ADD has succeeded, and since then neither DEL nor a fault has ended the attachment

	// The start and the end of the successful ADD, and its result:
	adding     time.Time
	added      time.Time
	bridgePort string // host end of the veth pair
	addresses  []netip.Prefix
	gateways   []netip.Addr
}

// runtimeConf returns what a runtime passes to libcni for the container.
func (c *container) runtimeConf() *libcni.RuntimeConf {
	conf := &libcni.RuntimeConf{ContainerID: c.name, NetNS: c.ns.Path, IfName: ifname}
	if c.network.limits {
		conf.CapabilityArgs = object{
			"portMappings": []object{{"hostPort": c.port, "containerPort": 80, "protocol": "tcp"}},
			"bandwidth": object{
				"ingressRate": 1000000000, "ingressBurst": 10000000, "egressRate": 1000000000, "egressBurst": 10000000,
			},
		}
	}
	return conf
}

// attached reads the result of ADD.
func (c *container) attached(result types.Result) error {
	r, err := current.GetResult(result)
	if err != nil {
		return err
	}
	for _, link := range r.Interfaces {
		if link.Sandbox == "" && strings.HasPrefix(link.Name, "veth") {
			c.bridgePort = link.Name
		}
	}
	for _, ip := range r.IPs {
		address, ok := netip.AddrFromSlice(ip.Address.IP)
		gateway, gatewayOK := netip.AddrFromSlice(ip.Gateway)
		if !ok || !gatewayOK {
			return fmt.Errorf("the result of ADD has an invalid address: %v", ip)
		}
		ones, _ := ip.Address.Mask.Size()
		c.addresses = append(c.addresses, netip.PrefixFrom(address.Unmap(), ones))
		c.gateways = append(c.gateways, gateway.Unmap())
	}
	if c.bridgePort == "" || len(c.addresses) == 0 {
		return fmt.Errorf("the result of ADD has no bridge port or no address: %v", r)
	}
	c.living, c.added = true, time.Now()
	return nil
}

// deleteNamespace deletes the container's network namespace, if it still exists.
func (c *container) deleteNamespace() error {
	c.living = false
	c.ns.Close()
	return setup.DeleteNamed(c.name)
}
