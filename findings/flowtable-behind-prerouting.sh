#!/bin/sh
# With br_netfilter, packets from a bridge port pass the prerouting chains before a flowtable of the
# bridge sees them. If the client is masqueraded, conntrack has then already changed the destination
# of a reply, so the flowtable does not find the connection: its replies pass all chains.
#
# Seen with Linux 6.12 (Debian's linux-image 6.12), nftables 1.0.6, iperf3 3.12. A client on bridge
# br1 sends 20 MB of TCP to a server on bridge br2, and the router between them masquerades br1. The
# rule "ct state established flow add" puts the connection into a flowtable of both bridges. Many
# means more than 100 packets of the connection. Output:
#
#	bridge-nf-call-iptables=0: prerouting few, forwarded requests few, forwarded replies few
#	bridge-nf-call-iptables=1: prerouting many, forwarded requests few, forwarded replies many
#
# The kernel's nf_flowtable.rst says that a packet that is found in the flowtable skips everything
# behind the ingress hook, and does not mention br_netfilter.
#
# Needs root, ip, nft, iperf3, and the kernel modules br_netfilter and nf_flow_table_inet. The exit
# status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
mount -t sysfs sysfs /sys
ip link set lo up
mount -t tmpfs none /run
mkdir /run/netns
for i in 1 2; do
	ip link add br$i type bridge
	ip link set br$i up
	ip addr add 10.88.$i.1/24 dev br$i
	ip netns add c$i
	ip link add veth$i type veth peer name eth0 netns c$i
	ip link set veth$i master br$i up
	ip -n c$i link set lo up
	ip -n c$i link set eth0 up
	ip -n c$i addr add 10.88.$i.2/24 dev eth0
	ip -n c$i route add default via 10.88.$i.1
done
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<END
table ip lab {
	flowtable fast { hook ingress priority filter; devices = { br1, br2 }; }
	counter arrived { }
	counter requests { }
	counter replies { }
	chain prerouting { type filter hook prerouting priority raw; tcp dport 5201 counter name arrived; }
	chain forward {
		type filter hook forward priority filter;
		tcp dport 5201 counter name requests
		tcp sport 5201 counter name replies
		ct state established flow add @fast
	}
	chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.88.1.0/24 oifname "br2" masquerade; }
}
END
count() { # prints few or many
	packets=$(nft list counter ip lab "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	if [ "$packets" -gt 100 ]; then echo many; else echo few; fi
}
seen=
for on in 0 1; do
	echo $on >/proc/sys/net/bridge/bridge-nf-call-iptables
	ip netns exec c2 iperf3 -s -1 -D -I /run/server
	until ip netns exec c2 ss -Hltn 'sport = 5201' | grep -q .; do sleep 0.1; done
	nft reset counters table ip lab >/dev/null
	# The socket buffer and the MSS are small, so that 20 MB are many packets in both directions.
	ip netns exec c1 iperf3 -c 10.88.2.2 -n 20M -w 32K -M 1000 >/dev/null
	line="bridge-nf-call-iptables=$on: prerouting $(count arrived), forwarded requests $(count requests), forwarded replies $(count replies)"
	echo "$line"
	seen="$seen$line;"
done
[ "$seen" = "bridge-nf-call-iptables=0: prerouting few, forwarded requests few, forwarded replies few;bridge-nf-call-iptables=1: prerouting many, forwarded requests few, forwarded replies many;" ]
