package firewalld

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// The zone and the policy that bridgeveth creates in firewalld, once for each host. All bridges are
// in the zone. The zone's target is ACCEPT, so firewalld accepts packets from the bridges. The
// policy leads from any zone to this zone, and accepts new connections to the bridges
// (firewalld.policies(5)). Each reload of firewalld removes the bridges from the zone.
const (
	ourZone   = "bridgeveth"
	ourPolicy = "bridgeveth-in" // at most 18 characters

	bus    = "org.fedoraproject.FirewallD1"
	path   = "/org/fedoraproject/FirewallD1"
	config = path + "/config"

	// timeout is the time limit for all calls of a Client together. It is long, because the daemon
	// reads its whole configuration at a reload.
	timeout = 30 * time.Second
)

// Client is a connection to the firewalld daemon. It needs root.
type Client struct {
	conn *dbus.Conn
	ctx  context.Context
	stop context.CancelFunc
}

// Dial connects to the system bus of D-Bus, at DBUS_SYSTEM_BUS_ADDRESS or at the default address.
func Dial() (*Client, error) {
	ctx, stop := context.WithTimeout(context.Background(), timeout)
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		stop()
		return nil, fmt.Errorf("connect to the system bus (D-Bus): %w", err)
	}
	return &Client{conn, ctx, stop}, nil
}

// Close closes the connection.
func (c *Client) Close() {
	_ = c.conn.Close() // an error has no consequence any more
	c.stop()
}

// call calls a method of the daemon. The methods of the permanent configuration begin with
// "config.".
func (c *Client) call(method string, args ...any) *dbus.Call {
	object := dbus.ObjectPath(path)
	if strings.HasPrefix(method, "config.") {
		object = config
	}
	call := c.conn.Object(bus, object).CallWithContext(c.ctx, bus+"."+method, 0, args...)
	if call.Err != nil {
		call.Err = fmt.Errorf("%s: %w", method, call.Err)
	}
	return call
}

// ZoneOf returns the zone of a link, or "" if the link is in no zone.
func (c *Client) ZoneOf(link string) (zone string, err error) {
	err = c.call("zone.getZoneOfInterface", link).Store(&zone)
	return zone, err
}

// Links lists the links in bridgeveth's zone. It returns an error if the zone does not exist.
func (c *Client) Links() (links []string, err error) {
	err = c.call("zone.getInterfaces", ourZone).Store(&links)
	return links, err
}

// Bind adds a link to bridgeveth's zone. It creates the zone and the policy if they do not exist.
func (c *Client) Bind(link string) error {
	if err := c.define(); err != nil {
		return err
	}
	return c.call("zone.addInterface", ourZone, link).Err
}

// Release removes a link from bridgeveth's zone.
func (c *Client) Release(link string) error {
	return c.call("zone.removeInterface", ourZone, link).Err
}

// Strict reports whether firewalld drops packets to host ports that other programs have published
// (StrictForwardPorts in firewalld.conf(5)). firewalld before 2.3 does not have this property. The
// error for a missing property looks like other errors, so Strict reads all properties at once.
func (c *Client) Strict() (bool, error) {
	var properties map[string]dbus.Variant
	err := c.conn.Object(bus, config).CallWithContext(c.ctx, "org.freedesktop.DBus.Properties.GetAll", 0, bus+".config").Store(&properties)
	if err != nil {
		return false, fmt.Errorf("read StrictForwardPorts: %w", err)
	}
	return properties["StrictForwardPorts"].Value() == "yes", nil
}

// has reports whether the list that a method returns contains a name.
func (c *Client) has(method, name string) (bool, error) {
	var names []string
	err := c.call(method).Store(&names)
	return slices.Contains(names, name), err
}

// define creates bridgeveth's zone and policy in firewalld's permanent configuration, because
// firewalld cannot create them at run time. Then it reloads firewalld.
func (c *Client) define() error {
	zone, err := c.has("zone.getZones", ourZone)
	if err != nil {
		return err
	}
	policy, err := c.has("policy.getPolicies", ourPolicy)
	if err != nil || zone && policy {
		return err
	}
	for _, d := range []struct {
		list, add, name string
		settings        map[string]dbus.Variant
	}{
		{"config.getZoneNames", "config.addZone2", ourZone, map[string]dbus.Variant{
			"target": dbus.MakeVariant("ACCEPT"), "short": dbus.MakeVariant(ourZone),
			"description": dbus.MakeVariant("Bridges of containers. Accepts packets from these containers."),
		}},
		{"config.getPolicyNames", "config.addPolicy", ourPolicy, map[string]dbus.Variant{
			"target": dbus.MakeVariant("ACCEPT"), "short": dbus.MakeVariant(ourPolicy),
			"description":   dbus.MakeVariant("Accepts packets to containers on the bridges of zone bridgeveth."),
			"ingress_zones": dbus.MakeVariant([]string{"ANY"}), "egress_zones": dbus.MakeVariant([]string{ourZone}),
		}},
	} {
		defined, err := c.has(d.list, d.name)
		if err == nil && !defined {
			err = c.call(d.add, d.name, d.settings).Err
		}
		if err != nil {
			return err
		}
	}
	return c.call("reload").Err
}
