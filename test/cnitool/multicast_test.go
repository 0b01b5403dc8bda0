package cnitool

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestMulticast checks multicast snooping on a bridge, and how soon containers repeat their
// multicast reports. A bridge that ADD makes does not snoop, and its containers repeat reports only
// after an hour. On other bridges, and where an administrator has switched snooping on, both
// settings have the kernel's defaults. In each case, a container must receive packets that another
// container sends to a multicast group.
func TestMulticast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, before, snooping, interval string }{
		{"made by ADD", "true", "0", "3600000"},
		{"made by ADD, snooping switched on", "true", "1", "1000"},
		{"a foreign bridge", "ip link add br0 type bridge; ip link set br0 up", "1", "1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual, "nft")
			c := n.containers(2)
			setuptest.Run(t, "sh", "-c", tt.before)
			for i := range c {
				on("ADD", i+1, dual).run(t).ok(t)
				if tt.snooping == "1" {
					setuptest.Run(t, "ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "1")
				}
			}
			if got := setuptest.Run(t, "ip", "-d", "link", "show", "br0"); !strings.Contains(got, "mcast_snooping "+tt.snooping) {
				t.Errorf("want mcast_snooping %s:\n%s", tt.snooping, got)
			}
			if got := setuptest.In(t, c[1], "cat", "/proc/sys/net/ipv6/conf/eth0/mldv2_unsolicited_report_interval"); strings.TrimSpace(got) != tt.interval {
				t.Errorf("a report is repeated within %s ms, want %s", got, tt.interval)
			}
			receivesGroup(t, c[0], c[1])
		})
	}
}

// receivesGroup joins a multicast group in one container, and sends a packet to the group from
// another. It fails the test if the packet does not arrive.
func receivesGroup(t *testing.T, from, to *setup.Namespace) {
	t.Helper()
	group := func() (*net.Interface, *net.UDPAddr, error) { // the zone is a number, because Go caches the names of interfaces for the whole process
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return nil, nil, err
		}
		return eth0, &net.UDPAddr{IP: net.ParseIP("ff02::4242"), Port: 4242, Zone: strconv.Itoa(eth0.Index)}, nil
	}
	var in *net.UDPConn
	err := to.Do(func() error {
		eth0, address, err := group()
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp6", eth0, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	err = from.Do(func() error {
		_, address, err := group()
		if err != nil {
			return err
		}
		out, err := net.DialUDP("udp6", nil, address)
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write([]byte("all"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(5 * time.Second)) // after an error, the read below fails
	if _, err := in.Read(make([]byte, 10)); err != nil {
		t.Errorf("a packet to a multicast group does not arrive: %v", err)
	}
}
