#!/bin/sh
# A connection in a flowtable keeps the MTU that the next link had when the connection entered the
# flowtable. For IPv4, the kernel drops the entry when the MTU of the link changes. For IPv6 it keeps
# the entry, and sends packets through the link that are larger than the MTU of the link.
#
# Seen with Linux 6.12 (Debian's linux-image 6.12), nftables 1.0.6, iperf3 3.12. A client sends TCP
# segments through a router. After three seconds, the router's uplink gets the MTU 1300 instead of
# 1500. The server's side counts packets of more than 1,300 bytes that arrive later. Output:
#
#	IPv4 without flowtable: none after the change
#	IPv4 with flowtable: none after the change
#	IPv6 without flowtable: none after the change
#	IPv6 with flowtable: large packets after the change
#
# nf_flow_table_ip.c compares a packet with the MTU in the flow's entry. A change of the MTU makes
# the routes of IPv4 obsolete (NETDEV_CHANGEMTU in net/ipv4/fib_frontend.c), so the entry's route is
# found to be obsolete too. IPv6 changes the MTU of its routes in place (rt6_mtu_change in
# net/ipv6/route.c).
#
# Needs root, ip, nft, iperf3, and the kernel module nf_flow_table_inet. The exit status is 0 if the
# script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
mount -t sysfs sysfs /sys
mount -t tmpfs none /run
mkdir /run/netns
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for i in 1 2; do
	ip netns add h$i
	ip link add up$i type veth peer name eth0 netns h$i
	ip link set up$i up
	ip addr add 10.88.$i.1/24 dev up$i
	ip addr add fd00:88:$i::1/64 dev up$i nodad
	ip -n h$i link set lo up
	ip -n h$i link set eth0 up
	ip -n h$i addr add 10.88.$i.2/24 dev eth0
	ip -n h$i addr add fd00:88:$i::2/64 dev eth0 nodad
	ip -n h$i addr add 10.88.$i.3/24 dev eth0
	ip -n h$i addr add fd00:88:$i::3/64 dev eth0 nodad
	ip -n h$i route add default via 10.88.$i.1
	ip -n h$i route add default via fd00:88:$i::1
done
ip -n h1 link set eth0 gso_max_segs 1 # each packet has one segment
# Priority -450 is before conntrack joins the fragments of a packet.
ip netns exec h2 nft 'add table inet lab; add counter inet lab large; add chain inet lab first { type filter hook prerouting priority -450; }; add rule inet lab first meta length > 1300 counter name large'
large() { ip netns exec h2 nft list counter inet lab large | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
seen=
for family in 4 6; do
	subnet=10.88.2.
	[ $family = 4 ] || subnet=fd00:88:2::
	for how in without with; do
		server=${subnet}2 # the client keeps the MTU of the path to each server
		[ $how = without ] || server=${subnet}3
		nft 'add table inet lab; delete table inet lab; add table inet lab'
		[ $how = without ] || nft -f - <<END
table inet lab {
	flowtable fast { hook ingress priority filter; devices = { up1, up2 }; }
	chain forward { type filter hook forward priority filter; ct state established flow add @fast; }
}
END
		ip netns exec h2 iperf3 -s -1 -D -I /run/server
		until ip netns exec h2 ss -Hltn 'sport = 5201' | grep -q .; do sleep 0.1; done
		ip netns exec h2 nft reset counters table inet lab >/dev/null
		ip netns exec h1 iperf3 -c $server -b 1M -l 4K -t 8 >/dev/null &
		sleep 3
		[ "$(large)" -gt 0 ]
		ip link set up2 mtu 1300
		sleep 2 # packets that are under way, and the sender's reaction to the first errors
		ip netns exec h2 nft reset counters table inet lab >/dev/null
		sleep 2
		after=$(large)
		wait
		ip link set up2 mtu 1500
		line="IPv$family $how flowtable: none after the change"
		[ "$after" = 0 ] || line="IPv$family $how flowtable: large packets after the change"
		echo "$line"
		seen="$seen$line;"
	done
done
[ "$seen" = "IPv4 without flowtable: none after the change;IPv4 with flowtable: none after the change;IPv6 without flowtable: none after the change;IPv6 with flowtable: large packets after the change;" ]
