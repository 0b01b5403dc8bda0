package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// firewalld's table of nf_tables belongs to its daemon, which is asked by D-Bus to let a
// bridge's packets pass: firewalld.dbus(5). A zone with the target ACCEPT, which the bridge
// is put into, lets out what comes from the bridge; a policy from anywhere to that zone lets
// new connections in (firewalld.policies(5)). Zone and policy are made once and stay; what
// is in the zone, firewalld forgets with each reload.
const (
	firewalldTable  = "firewalld"
	firewalldZone   = "bridgeveth"
	firewalldPolicy = "bridgeveth-in" // at most 18 letters

	firewalldBus    = "org.fedoraproject.FirewallD1"
	firewalldPath   = "/org/fedoraproject/FirewallD1"
	firewalldConfig = firewalldPath + "/config"

	// firewalldWait is how long it may take to answer; it reads all of its configuration
	// anew for a reload.
	firewalldWait = 30 * time.Second
)

var (
	// ErrNoFirewalld says that firewalld is asked for and does not run, or cannot be
	// asked.
	ErrNoFirewalld = errors.New(`start it, or choose another "forward"`)
	// ErrStrictForwardPorts says that firewalld drops what goes to host ports.
	ErrStrictForwardPorts = errors.New("firewalld drops what goes to published ports: set StrictForwardPorts=no in firewalld.conf, or publish the port by firewalld itself")
)

// firewalldLacks looks whether firewalld has the network's links in a zone. Whatever zone
// an administrator has put them into is his decision.
func (n *Namespace) firewalldLacks(net *Network) (lacks []lack, err error) {
	inForce, err := n.hasNFTTable(familyInet, firewalldTable)
	if err != nil {
		return nil, err
	}
	if !inForce {
		if net.Forward == ForwardFirewalld {
			return nil, fmt.Errorf("firewalld does not run here with its nf_tables backend: %w", ErrNoFirewalld)
		}
		return nil, nil
	}
	if err := net.checkStrict(); err != nil {
		return nil, err
	}
	zones, err := n.nftRules(familyInet, firewalldTable, "filter_FORWARD_ZONES")
	if err != nil {
		return nil, err
	}
	for _, link := range net.links() {
		if slices.ContainsFunc(zones, func(r rule) bool { return r.in == link && r.target != "" }) {
			continue // as firewalld of 1.0 and newer writes it: no need to ask
		}
		f, err := dialFirewalld()
		if err != nil {
			return nil, err
		}
		zone, err := f.zoneOf(link)
		f.close()
		if err != nil {
			return nil, err
		}
		if zone == "" {
			lacks = append(lacks, lack{
				fmt.Sprintf("%s in zone %s of firewalld", link, firewalldZone),
				func() error { return bindFirewalld(link) },
			})
		}
	}
	return lacks, nil
}

// hasNFTTable says whether a table exists.
func (n *Namespace) hasNFTTable(family int, table string) (bool, error) {
	return n.exists(unix.NFT_MSG_GETTABLE, family, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
}

// checkStrict says whether firewalld lets what goes to host ports pass.
func (net *Network) checkStrict() error {
	if len(net.HostPorts) == 0 {
		return nil
	}
	f, err := dialFirewalld()
	if err != nil {
		return err
	}
	defer f.close()
	strict, err := f.Object(firewalldBus, firewalldConfig).GetProperty(firewalldBus + ".config.StrictForwardPorts")
	if err != nil {
		return nil //nolint:nilerr // before firewalld 2.3 there is no such thing
	}
	if strict.Value() == "yes" {
		return ErrStrictForwardPorts
	}
	return nil
}

// firewalld is a connection to its daemon.
type firewalld struct {
	*dbus.Conn
	ctx  context.Context
	stop context.CancelFunc
}

// dialFirewalld connects to the system's bus (DBUS_SYSTEM_BUS_ADDRESS, or the usual
// place).
func dialFirewalld() (*firewalld, error) {
	ctx, stop := context.WithTimeout(context.Background(), firewalldWait)
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		stop()
		return nil, fmt.Errorf("firewalld is in force, and the D-Bus to ask it by cannot be reached: %w: %w", err, ErrNoFirewalld)
	}
	return &firewalld{conn, ctx, stop}, nil
}

func (f *firewalld) close() {
	_ = f.Close() // nothing is left to be said
	f.stop()
}

// call calls a method of the daemon, or of its permanent configuration, whose names begin
// with "config.".
func (f *firewalld) call(method string, args ...any) *dbus.Call {
	path := dbus.ObjectPath(firewalldPath)
	if strings.HasPrefix(method, "config.") {
		path = firewalldConfig
	}
	c := f.Object(firewalldBus, path).CallWithContext(f.ctx, firewalldBus+"."+method, 0, args...)
	if c.Err != nil {
		c.Err = fmt.Errorf("ask firewalld, %s: %w", method, c.Err)
	}
	return c
}

// zoneOf is the zone that a link is in, or "".
func (f *firewalld) zoneOf(link string) (zone string, err error) {
	return zone, f.call("zone.getZoneOfInterface", link).Store(&zone)
}

// has says whether a method's answer lists a name.
func (f *firewalld) has(method, name string) (bool, error) {
	var names []string
	err := f.call(method).Store(&names)
	return slices.Contains(names, name), err
}

// bindFirewalld puts a link into our zone.
func bindFirewalld(link string) error {
	f, err := dialFirewalld()
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.define(); err != nil {
		return err
	}
	return f.call("zone.addInterface", firewalldZone, link).Err
}

// define makes our zone and our policy, in firewalld's permanent configuration, from where
// a reload takes them: at run time it makes none.
func (f *firewalld) define() error {
	zone, err := f.has("zone.getZones", firewalldZone)
	if err != nil {
		return err
	}
	policy, err := f.has("policy.getPolicies", firewalldPolicy)
	if err != nil || zone && policy {
		return err
	}
	for _, d := range []struct {
		list, add, name string
		settings        map[string]dbus.Variant
	}{
		{"config.getZoneNames", "config.addZone2", firewalldZone, map[string]dbus.Variant{
			"target": dbus.MakeVariant("ACCEPT"), "short": dbus.MakeVariant(firewalldZone),
			"description": dbus.MakeVariant("Bridges of containers: what comes from them is let out."),
		}},
		{"config.getPolicyNames", "config.addPolicy", firewalldPolicy, map[string]dbus.Variant{
			"target": dbus.MakeVariant("ACCEPT"), "short": dbus.MakeVariant(firewalldPolicy),
			"description":   dbus.MakeVariant("Containers on these bridges may be reached."),
			"ingress_zones": dbus.MakeVariant([]string{"ANY"}), "egress_zones": dbus.MakeVariant([]string{firewalldZone}),
		}},
	} {
		defined, err := f.has(d.list, d.name)
		if err == nil && !defined {
			err = f.call(d.add, d.name, d.settings).Err
		}
		if err != nil {
			return err
		}
	}
	return f.call("reload").Err
}

// deleteFromFirewalld takes a bridge, and its VLAN links, out of our zone. A daemon that
// does not run has nothing to forget.
func (n *Namespace) deleteFromFirewalld(bridge string) error {
	inForce, err := n.hasNFTTable(familyInet, firewalldTable)
	if err != nil || !inForce {
		return err
	}
	f, err := dialFirewalld()
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer f.close()
	var links []string
	if err := f.call("zone.getInterfaces", firewalldZone).Store(&links); err != nil {
		return nil //nolint:nilerr // it has no such zone, or does not run
	}
	var errs []error
	for _, link := range links {
		if link == bridge || isVLANOf(bridge, link) {
			errs = append(errs, f.call("zone.removeInterface", firewalldZone, link).Err)
		}
	}
	return errors.Join(errs...)
}
