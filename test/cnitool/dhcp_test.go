package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// lan makes an administrator's bridge with an uplink to a router on a LAN. The router has the
// address 10.88.0.200. lan also makes a witness: a container on the bridge with the kernel's
// default settings.
func lan(t *testing.T) (router, witness *setup.Namespace) {
	t.Helper()
	router, witness = setuptest.Container(t, "router"), setuptest.Container(t, "witness")
	setuptest.Run(t, "sh", "-ec", "ip link add br0 type bridge; echo 0 >/proc/sys/net/ipv6/conf/br0/accept_ra; ip link set br0 up; "+
		"ip link add card type veth peer name eth0 netns router; ip link set card address 52:54:00:12:34:56 master br0 up; "+
		"ip -n router addr add 10.88.0.200/24 dev eth0; ip -n router link set eth0 up; "+
		"ip link add witness type veth peer name eth0 netns witness; ip link set witness address 52:54:00:12:34:57 master br0 up; ip -n witness link set eth0 up")
	harness.Await(t, "the router's address", func() bool {
		return strings.Contains(setuptest.In(t, router, "ip", "-6", "addr", "show", "dev", "eth0", "-tentative"), "fe80")
	})
	return router, witness
}

// dhcpServer runs a DHCP server that leases 10.88.0.50 and 10.88.0.51 for an hour. Clients renew
// their leases every 3 seconds. acks returns how many leases and renewals the server has
// confirmed. leased reports whether the server has an active lease.
func dhcpServer(t *testing.T, router *setup.Namespace) (acks func() int, leased func() bool) {
	t.Helper()
	conf := "interface eth0\nstart 10.88.0.50\nend 10.88.0.51\nlease_file /run/udhcpd.leases\npidfile /run/udhcpd.pid\n" +
		"option subnet 255.255.255.0\noption router 10.88.0.200\noption lease 3600\noption 0x3a 00000003\n"
	if err := os.WriteFile("/run/udhcpd.conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Daemon(t, "nsenter", "--net="+router.Path, "sh", "-c", "exec busybox udhcpd -f /run/udhcpd.conf >/run/udhcpd.log 2>&1")
	said := func(what string) int {
		log, _ := os.ReadFile("/run/udhcpd.log") // the server makes the file when it starts
		return strings.Count(string(log), what)
	}
	acks = func() int { return said("sending ACK") }
	leased = func() bool {
		// The server writes the list after it has logged the signal. Until then, dumpleases finds no list.
		setuptest.Run(t, "sh", "-ec", "rm -f /run/udhcpd.leases; kill -USR1 $(cat /run/udhcpd.pid)")
		harness.Await(t, "the list of leases", func() bool {
			return setuptest.Run(t, "sh", "-c", "busybox dumpleases -f /run/udhcpd.leases >/run/leases 2>/dev/null && echo complete || true") != ""
		})
		list, err := os.ReadFile("/run/leases")
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(list)) {
			if strings.Contains(line, "10.88.0.5") && !strings.Contains(line, "expired") {
				return true
			}
		}
		return false
	}
	return acks, leased
}

// TestDHCP checks the reference IPAM plugin dhcp. The plugin's daemon requests a lease from a
// server on the LAN, through the container's interface. It renews the lease, and releases it at
// DEL.
func TestDHCP(t *testing.T) {
	t.Parallel()
	dhcp := object{"type": "bridgeveth", "bridge": "br0", "ipam": object{"type": "dhcp"}}
	for _, tt := range []struct {
		name       string
		conf       object
		autoconfig bool // the container uses router advertisements
	}{
		{"plain", dhcp, true},
		{"by the reference's name", dhcp.with(object{"type": "bridge"}), true},
		{"macspoofchk", dhcp.with(object{"macspoofchk": true}), true},
		{"ipspoofchk", dhcp.with(object{"ipspoofchk": true}), false},
		{"isolated", dhcp.with(object{"ingressPolicy": "isolated"}), true},
		{"host ports, masquerade and a limit", publishing(dhcp.with(object{"ipMasq": true}), object{"hostPort": 8080, "containerPort": 80}).with(object{
			"runtimeConfig": object{"portMappings": []object{{"hostPort": 8080, "containerPort": 80}}, "bandwidth": object{"ingressRate": 1e8, "ingressBurst": 1e7}},
		}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			if tt.name == "isolated" { // with br_netfilter, the policy would drop the replies of the server
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-iptables", "0")
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-ip6tables", "0")
			}
			router, witness := lan(t)
			acks, leased := dhcpServer(t, router)
			stop := harness.Daemon(t, programs+"/dhcp", "daemon", "-socketpath", "/run/cni/dhcp.sock")
			harness.Await(t, "the dhcp daemon", func() bool { _, err := os.Stat("/run/cni/dhcp.sock"); return err == nil })
			c := n.containers(1)[0]
			before := setuptest.Dump(t)
			on("STATUS", 1, tt.conf).run(t).ok(t)
			check := on("CHECK", 1, checking(tt.conf, on("ADD", 1, tt.conf).run(t).ok(t)))
			check.run(t).ok(t)
			if out := setuptest.In(t, c, "ip", "route"); !strings.Contains(out, "default via 10.88.0.200") {
				t.Errorf("routes: %s", out)
			}
			if !leased() || !setuptest.Ping(t, c, "10.88.0.200") {
				t.Error("no lease, or no answer from the router")
			}
			granted := acks()
			harness.Await(t, "a renewal", func() bool { return acks() > granted })
			if got := autoconfigured(t, router, witness, c); got != tt.autoconfig {
				t.Errorf("the container accepts router advertisements: %v, want %v", got, tt.autoconfig)
			}
			check.run(t).ok(t)
			on("DEL", 1, tt.conf).run(t).ok(t)
			if leased() {
				t.Error("after DEL the server's lease is left")
			}
			on("GC", 1, tt.conf.with(object{"cni.dev/valid-attachments": []object{}})).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")

			setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
			before = setuptest.Dump(t)
			if f := on("ADD", 1, tt.conf.with(object{"isGateway": true})).run(t).failed(t); f.Code != 101 {
				t.Errorf("got %+v, want code 101", f)
			}
			if leased() {
				t.Error("after a failed ADD the server's lease is left")
			}
			stop()
			if f := on("ADD", 1, tt.conf).run(t).failed(t); f.Code != 105 || !strings.Contains(f.Msg, "dhcp") {
				t.Errorf("without the daemon: got %+v, want code 105", f)
			}
			setuptest.Same(t, before, "a failed ADD left traces")
		})
	}
}

// TestDHCPKilled kills an ADD while it waits for a DHCP server that does not answer. It checks
// that the next ADD fails, because the port is already up, and that DEL removes the port.
func TestDHCPKilled(t *testing.T) {
	t.Parallel()
	conf := object{"type": "bridgeveth", "bridge": "br0", "ipam": object{"type": "dhcp"}}
	n := newNode(t, conf, "nft")
	lan(t)
	harness.Daemon(t, programs+"/dhcp", "daemon", "-socketpath", "/run/cni/dhcp.sock")
	harness.Await(t, "the dhcp daemon", func() bool { _, err := os.Stat("/run/cni/dhcp.sock"); return err == nil })
	c := n.containers(1)[0]
	before := setuptest.Dump(t)
	add := on("ADD", 1, conf).command(t)
	if err := add.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Await(t, "the container's interface", func() bool {
		return strings.Contains(setuptest.In(t, c, "ip", "-o", "link"), "eth0") && strings.Contains(setuptest.Run(t, "ip", "-o", "link", "show", "master", "br0", "up"), "veth")
	})
	if err := add.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = add.Wait() // the error only says that ADD was killed
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 {
		t.Errorf("got %+v, want code 101", f)
	}
	on("DEL", 1, conf).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}
