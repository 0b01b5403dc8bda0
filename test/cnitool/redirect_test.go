package cnitool

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// redirections are shell commands that redirect packets as kube-proxy, Docker or an administrator
// does. kube-proxy also marks the packets that it masquerades. The Service 10.96.0.1, its NodePorts
// 30080 (externalTrafficPolicy Cluster) and 30081 (Local), and port 9000 of the host lead to the
// container 10.88.0.2. The Service 10.96.0.2 leads to 192.0.2.2.
var redirections = map[string]string{
	"kube-proxy, iptables": `iptables-restore --noflush <<-END
		*nat
		:KUBE-SERVICES - [0:0]
		:KUBE-NODEPORTS - [0:0]
		:KUBE-POSTROUTING - [0:0]
		:KUBE-MARK-MASQ - [0:0]
		:KUBE-SVC-WEB - [0:0]
		:KUBE-SEP-WEB - [0:0]
		:KUBE-EXT-WEB - [0:0]
		:KUBE-EXT-LOCAL - [0:0]
		-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
		-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
		-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
		-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
		-A KUBE-POSTROUTING -j MASQUERADE --random-fully
		-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB
		-A KUBE-SERVICES -d 10.96.0.2/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.2:80
		-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
		-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WEB
		-A KUBE-NODEPORTS -p tcp -m tcp --dport 30081 -j KUBE-EXT-LOCAL
		-A KUBE-EXT-WEB -j KUBE-MARK-MASQ
		-A KUBE-EXT-WEB -j KUBE-SVC-WEB
		-A KUBE-EXT-LOCAL -s 10.88.0.0/24 -j KUBE-SVC-WEB
		-A KUBE-SVC-WEB ! -s 10.88.0.0/24 -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
		-A KUBE-SVC-WEB -j KUBE-SEP-WEB
		-A KUBE-SEP-WEB -s 10.88.0.2/32 -j KUBE-MARK-MASQ
		-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination 10.88.0.2:80
		COMMIT
	END`,
	"kube-proxy, nftables": `nft -f - <<-END
		table ip kube-proxy {
			map service-ips {
				type ipv4_addr . inet_proto . inet_service : verdict
				elements = { 10.96.0.1 . tcp . 80 : goto service-web, 10.96.0.2 . tcp . 80 : goto endpoint-outside }
			}
			map service-nodeports {
				type inet_proto . inet_service : verdict
				elements = { tcp . 30080 : goto external-web, tcp . 30081 : goto external-local }
			}
			chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
			chain nat-output { type nat hook output priority -100; jump services; }
			chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
			chain services {
				ip daddr . meta l4proto . th dport vmap @service-ips
				fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
			}
			chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
			chain masquerading {
				meta mark & 0x4000 == 0 return
				meta mark set meta mark ^ 0x4000
				masquerade fully-random
			}
			chain external-web { jump mark-for-masquerade; goto service-web; }
			chain external-local { ip saddr 10.88.0.0/24 goto service-web; }
			chain service-web {
				ip daddr 10.96.0.1 tcp dport 80 ip saddr != 10.88.0.0/24 jump mark-for-masquerade
				numgen random mod 1 vmap { 0 : goto endpoint-web }
			}
			chain endpoint-web {
				ip saddr 10.88.0.2 jump mark-for-masquerade
				meta l4proto tcp dnat to 10.88.0.2:80
			}
			chain endpoint-outside { meta l4proto tcp dnat to 192.0.2.2:80; }
		}
	END`,
	"Docker": `iptables-restore --noflush <<-END
		*nat
		:DOCKER - [0:0]
		-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
		-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
		-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 10.88.0.2:80
		COMMIT
	END`,
	"an administrator": `
		iptables -t nat -A PREROUTING -d 192.0.2.1 -p tcp --dport 9000 -j DNAT --to-destination 10.88.0.2:80
		iptables -t mangle -A PREROUTING -j CONNMARK --restore-mark
		iptables -t mangle -A PREROUTING -i br0 -m mark --mark 0 -j MARK --set-mark 7
		iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark`,
}

// TestRedirectionsOfOthers sends packets to a container through redirections of other programs. The
// container also publishes a host port for the same container port. The test checks that bridgeveth
// does not masquerade the packets of these redirections. Of the packets to its own host port,
// bridgeveth may masquerade only those whose answers would otherwise bypass the host.
func TestRedirectionsOfOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		by    string
		paths []redirected
	}{
		{"kube-proxy, iptables", kubernetes}, {"kube-proxy, nftables", kubernetes}, {"Docker", ofTheHost}, {"an administrator", ofTheHost},
	} {
		t.Run(tt.by, func(t *testing.T) {
			t.Parallel()
			conf := single.with(object{"hairpinMode": true})
			n := newNode(t, conf, "nft")
			outside := n.outside(false)
			c := n.containers(2)
			setuptest.Run(t, "sh", "-ec", redirections[tt.by])
			on("ADD", 1, publishing(conf, object{"hostPort": 80, "containerPort": 80})).run(t).ok(t)
			on("ADD", 2, conf).run(t).ok(t)
			serve(t, c[0], 80)
			serve(t, outside, 80)
			from := map[string]*setup.Namespace{"outside": outside, "sibling": c[1], "itself": c[0], "host": n.Namespace}
			ours := []redirected{
				{"outside", "192.0.2.1", 80, "192.0.2.2"}, {"host", "127.0.0.1", 80, "10.88.0.1"},
				{"sibling", "192.0.2.1", 80, "10.88.0.1"}, {"itself", "192.0.2.1", 80, "10.88.0.1"},
			}
			for _, p := range append(ours, tt.paths...) {
				if got := ask(t, from[p.from], "tcp", p.to, p.port); got != p.want {
					t.Errorf("%s to %s:%d: got %q, want %q", p.from, p.to, p.port, got, p.want)
				}
			}
		})
	}
}

// redirected is a path to a server. The field want has the source address that the server must see.
type redirected struct {
	from, to string
	port     int
	want     string
}

var (
	kubernetes = []redirected{
		{"outside", "192.0.2.1", 30080, "10.88.0.1"},
		{"sibling", "10.96.0.1", 80, "10.88.0.3"},
		{"sibling", "192.0.2.1", 30080, "10.88.0.1"},
		{"sibling", "192.0.2.1", 30081, "10.88.0.3"},
		{"itself", "10.96.0.1", 80, "10.88.0.1"},
		{"sibling", "10.96.0.2", 80, "192.0.2.1"},
	}
	ofTheHost = []redirected{{"outside", "192.0.2.1", 9000, "192.0.2.2"}, {"sibling", "192.0.2.1", 9000, "10.88.0.3"}}
)
