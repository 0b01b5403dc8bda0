package cnitool

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// advertise sends a router advertisement for fd77::/64 to all nodes on the link of eth0: RFC 4861,
// sections 4.2 and 4.6.2.
func advertise(t testing.TB, router *setup.Namespace) {
	t.Helper()
	prefix := netip.MustParseAddr("fd77::").As16()
	m := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0} // a default router for half an hour
	m = append(m, 3, 4, 64, 0xc0)                                        // on the link, and for addresses
	m = binary.BigEndian.AppendUint32(m, 3600)                           // valid
	m = binary.BigEndian.AppendUint32(m, 3600)                           // preferred
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

// TestAutoconfiguration has a router on a LAN advertise a prefix. Containers of layer 2 networks
// get an address of it and a default route; others, whose addresses are ours to give, do not.
func TestAutoconfiguration(t *testing.T) {
	layer2 := object{"type": "bridgeveth", "bridge": "br0"}
	for _, tt := range []struct {
		name string
		conf object
		want bool
	}{
		{"layer 2", layer2, true},
		{"addresses of ours", single.with(object{"isDefaultGateway": false, "ipMasq": false}), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			c := n.containers(1)[0]
			router := lan(t)
			before := setuptest.Dump(t)
			result := on("ADD", 1, tt.conf).run(t).ok(t)
			configured := func() bool {
				advertise(t, router)
				return strings.Contains(setuptest.In(t, c, "ip", "-6", "addr", "show", "dev", "eth0"), "fd77::") &&
					strings.Contains(setuptest.In(t, c, "ip", "-6", "route", "show", "default"), "via fe80::")
			}
			if tt.want {
				awaitTrue(t, "the address of a router", configured)
			} else {
				time.Sleep(300 * time.Millisecond)
				if out := setuptest.In(t, c, "ip", "-6", "addr", "show", "dev", "eth0"); configured() || strings.Contains(out, "inet6") {
					t.Errorf("the container has IPv6: %s", out)
				}
			}
			on("CHECK", 1, checking(tt.conf, result)).run(t).ok(t)
			on("DEL", 1, tt.conf).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
