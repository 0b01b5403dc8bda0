#!/bin/sh
# From Linux 7.2 on, a flowtable takes no connection that arrives through a bridge, unless the port of the bridge
# is a device of the flowtable, too. "flow add" fails without a word, and the rules look as before. Before, the
# bridge itself was sufficient.
#
# Seen with Linux 7.3.4 (Debian's linux-image 7.3 of trixie-backports), nftables 1.0.6, iperf3 3.12. A client on
# bridge br1 sends 20 MB of TCP to a server on bridge br2, and the router between them has the rule "ct state
# established flow add". Many means more than 100 packets of the connection in the forward hook. Output:
#
#	devices br1, br2: forwarded many
#	devices br1, br2, veth1, veth2: forwarded few
#
# Linux 6.12 prints "few" in both lines. The change is "netfilter: flowtable: bail out if forward path cannot be
# discovered" (net/netfilter/nf_flow_table_path.c).
#
# Needs root, ip, nft, iperf3, and the kernel module nf_flow_table_inet. The exit status is 0 if the script sees
# this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
mount -t sysfs sysfs /sys
mount -t tmpfs none /run
mkdir /run/netns
ip link set lo up
for i in 1 2; do
	ip netns add c$i
	ip link add br$i type bridge
	ip link add veth$i type veth peer name eth0 netns c$i
	ip link set veth$i master br$i up
	ip link set br$i up
	ip addr add 10.88.$i.1/24 dev br$i
	ip -n c$i link set eth0 up
	ip -n c$i addr add 10.88.$i.2/24 dev eth0
	ip -n c$i route add default via 10.88.$i.1
done
echo 1 >/proc/sys/net/ipv4/ip_forward
seen=
for devices in "br1, br2" "br1, br2, veth1, veth2"; do
	nft -f - <<END
flush ruleset
table ip lab {
	flowtable fast { hook ingress priority filter; devices = { $devices }; }
	counter forwarded { }
	chain forward {
		type filter hook forward priority filter;
		tcp dport 5201 counter name forwarded
		ct state established flow add @fast
	}
}
END
	ip netns exec c2 iperf3 -s -1 -D -I /run/server
	until ip netns exec c2 ss -Hltn 'sport = 5201' | grep -q .; do sleep 0.1; done
	ip netns exec c1 iperf3 -c 10.88.2.2 -n 20M -M 1000 >/dev/null
	packets=$(nft list counter ip lab forwarded | sed -n 's/.*packets \([0-9]*\).*/\1/p')
	if [ "$packets" -gt 100 ]; then count=many; else count=few; fi
	echo "devices $devices: forwarded $count"
	seen="$seen$count "
done
[ "$seen" = "many few " ]
