// Package firewalld asks firewalld's daemon to let the packets of bridges pass, by D-Bus:
// firewalld.dbus(5).
//
// It is not for the plugins themselves, which start for each container: the library of
// D-Bus makes them an eighth larger, and their start about a tenth slower. They run bvctl,
// once for a bridge, and for a host port.
package firewalld

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// A zone with the target ACCEPT, which a bridge is put into, lets out what comes from the
// bridge; a policy from anywhere to that zone lets new connections in
// (firewalld.policies(5)). Zone and policy are made once and stay; what is in the zone,
// firewalld forgets with each reload.
const (
	ourZone   = "bridgeveth"
	ourPolicy = "bridgeveth-in" // at most 18 letters

	bus    = "org.fedoraproject.FirewallD1"
	path   = "/org/fedoraproject/FirewallD1"
	config = path + "/config"

	// patience is how long it may take to answer; it reads all of its configuration anew
	// for a reload.
	patience = 30 * time.Second
)

// Client is a connection to the daemon. Root may use it.
type Client struct {
	conn *dbus.Conn
	ctx  context.Context
	stop context.CancelFunc
}

// Dial connects to the system's bus (DBUS_SYSTEM_BUS_ADDRESS, or the usual place).
func Dial() (*Client, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		stop()
		return nil, fmt.Errorf("the D-Bus to ask it by cannot be reached: %w", err)
	}
	return &Client{conn, ctx, stop}, nil
}

// Close ends the connection.
func (c *Client) Close() {
	_ = c.conn.Close() // nothing is left to be said
	c.stop()
}

// call calls a method of the daemon, or of its permanent configuration, whose names begin
// with "config.".
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

// ZoneOf is the zone that a link is in, or "".
func (c *Client) ZoneOf(link string) (zone string, err error) {
	err = c.call("zone.getZoneOfInterface", link).Store(&zone)
	return zone, err
}

// Links lists what is in our zone. That there is no such zone is an error.
func (c *Client) Links() (links []string, err error) {
	err = c.call("zone.getInterfaces", ourZone).Store(&links)
	return links, err
}

// Bind puts a link into our zone, which is made, with the policy, when absent.
func (c *Client) Bind(link string) error {
	if err := c.define(); err != nil {
		return err
	}
	return c.call("zone.addInterface", ourZone, link).Err
}

// Release takes a link out of our zone.
func (c *Client) Release(link string) error {
	return c.call("zone.removeInterface", ourZone, link).Err
}

// Strict says whether the daemon drops what goes to ports that it has not published itself
// (StrictForwardPorts in firewalld.conf(5)). Before firewalld 2.3 there is no such thing:
// asked for all of its properties, the daemon leaves it out, where asked for that one it
// would give an error like any other.
func (c *Client) Strict() (bool, error) {
	var properties map[string]dbus.Variant
	err := c.conn.Object(bus, config).CallWithContext(c.ctx, "org.freedesktop.DBus.Properties.GetAll", 0, bus+".config").Store(&properties)
	if err != nil {
		return false, fmt.Errorf("read StrictForwardPorts: %w", err)
	}
	return properties["StrictForwardPorts"].Value() == "yes", nil
}

// has says whether a method's answer lists a name.
func (c *Client) has(method, name string) (bool, error) {
	var names []string
	err := c.call(method).Store(&names)
	return slices.Contains(names, name), err
}

// define makes our zone and our policy, in firewalld's permanent configuration, from where
// a reload takes them: at run time it makes none.
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
