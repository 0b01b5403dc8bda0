package cnitool

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// advertise sends a router advertisement for fd77::/64 to all nodes on the link of eth0 (RFC 4861,
// sections 4.2 and 4.6.2).
func advertise(t testing.TB, router *setup.Namespace) {
	t.Helper()
	prefix := netip.MustParseAddr("fd77::").As16()
	m := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0} // lifetime of the default router: half an hour
	m = append(m, 3, 4, 64, 0xc0)                                        // flags: on-link, autonomous address configuration
	m = binary.BigEndian.AppendUint32(m, 3600)                           // valid lifetime
	m = binary.BigEndian.AppendUint32(m, 3600)                           // preferred lifetime
	m = append(append(m, 0, 0, 0, 0), prefix[:]...)
	err := router.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6) // the kernel adds the checksum
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		to := netip.MustParseAddr("ff02::1").As16()
		return unix.Sendto(fd, m, 0, &unix.SockaddrInet6{Addr: to, ZoneId: uint32(link.Index)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// autoconfigured reports whether the container c has an address and a default route from the
// router's advertisement (see advertise). It first waits until another container on the bridge, the
// witness, has such an address and route.
func autoconfigured(t testing.TB, router, witness, c *setup.Namespace) bool {
	t.Helper()
	has := func(c *setup.Namespace) bool {
		return strings.Contains(setuptest.In(t, c, "ip", "-6", "addr"), "fd77::") &&
			strings.Contains(setuptest.In(t, c, "ip", "-6", "route", "show", "default"), "via fe80::")
	}
	harness.Await(t, "the witness's address", func() bool { advertise(t, router); return has(witness) })
	return has(c)
}

// askDHCPv6 sends a packet from a client to the DHCPv6 servers on its link, that is, to a
// multicast group. It returns the server's answer, which goes to the client's link-local address
// (RFC 8415, section 7).
func askDHCPv6(t testing.TB, server, client *setup.Namespace) string {
	t.Helper()
	listen := func(ns *setup.Namespace, group net.IP, port int) (c *net.UDPConn, link *net.Interface) {
		err := ns.Do(func() (err error) {
			if link, err = net.InterfaceByName("eth0"); err != nil {
				return err
			}
			if group == nil {
				c, err = net.ListenUDP("udp6", &net.UDPAddr{Port: port})
			} else {
				c, err = net.ListenMulticastUDP("udp6", link, &net.UDPAddr{IP: group, Port: port})
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // nothing is buffered
		return c, link
	}
	group := net.ParseIP("ff02::1:2")
	to, _ := listen(server, group, 547)
	from, link := listen(client, nil, 546)
	go func() {
		packet := make([]byte, 64)
		if n, who, err := to.ReadFromUDP(packet); err == nil {
			_, _ = to.WriteToUDP(append([]byte("reply to "), packet[:n]...), who) // if this fails, the client fails
		}
	}()
	packet := make([]byte, 64)
	if _, err := from.WriteToUDP([]byte("solicit"), &net.UDPAddr{IP: group, Port: 547, Zone: strconv.Itoa(link.Index)}); err != nil {
		t.Error(err)
	}
	_ = from.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := from.ReadFromUDP(packet)
	if err != nil {
		t.Error(err)
	}
	return string(packet[:n])
}

// TestAutoconfiguration checks which containers use the router advertisements and the DHCPv6
// server of a LAN. Containers of layer 2 networks use both. Containers with addresses from ADD
// use neither, even if FORWARD accepts the packets.
func TestAutoconfiguration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		conf object
		want bool
	}{
		{"layer 2", object{"type": "bridgeveth", "bridge": "br0"}, true},
		{"addresses of ours", single.with(object{"isDefaultGateway": false, "ipMasq": false}), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			c := n.containers(1)[0]
			router, witness := lan(t)
			before := setuptest.Dump(t)
			result := on("ADD", 1, tt.conf).run(t).ok(t)
			if !tt.want {
				setuptest.Run(t, "ip6tables-nft", "-P", "FORWARD", "ACCEPT")
			}
			if got := autoconfigured(t, router, witness, c); got != tt.want {
				t.Errorf("the container accepts router advertisements: %v, want %v", got, tt.want)
			}
			if out := setuptest.In(t, c, "ip", "-6", "addr", "show", "dev", "eth0"); strings.Contains(out, "inet6") != tt.want {
				t.Errorf("IPv6 of the container, want %v: %s", tt.want, out)
			}
			if tt.want {
				dhcpServer(t, router)
				if out := setuptest.In(t, c, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-s", "/bin/true"); !strings.Contains(out, "lease of 10.88.0.5") {
					t.Errorf("DHCP: %s", out)
				}
				harness.Await(t, "the container's link-local address", func() bool {
					return strings.Contains(setuptest.In(t, c, "ip", "-6", "addr", "show", "dev", "eth0", "-tentative"), "fe80")
				})
				if got := askDHCPv6(t, router, c); got != "reply to solicit" {
					t.Errorf("DHCPv6: %q", got)
				}
			} else {
				setuptest.Run(t, "ip6tables-nft", "-P", "FORWARD", "DROP")
			}
			on("CHECK", 1, checking(tt.conf, result)).run(t).ok(t)
			on("DEL", 1, tt.conf).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
