#!/bin/sh
# With br_netfilter, a tc ingress filter on a bridge sees packets after conntrack has changed their
# destination. Without br_netfilter, the filter sees the destination that is on the wire.
#
# Seen with Linux 6.18, iproute2 6.1.0, nftables 1.0.6 (Debian 12). The host pings 127.0.0.9.
# nftables redirects these packets to a container and masquerades them, so the container's answers
# go to the bridge's own address. conntrack changes this destination back to 127.0.0.0/8. A filter on
# the bridge drops packets to 127.0.0.0/8. Output:
#
#	bridge-nf-call-iptables=0: answered
#	bridge-nf-call-iptables=1: no answer
#
# Diagrams of the packet flow show tc ingress before netfilter's prerouting. This is true for the
# bridge's ports. For the bridge itself it is false, because br_netfilter runs prerouting when a
# frame enters a port.
#
# Needs root, ip, tc, nft and ping, and the kernel module br_netfilter. The exit status is 0 if the
# script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
mount -t sysfs sysfs /sys
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
ip addr add 10.88.0.1/24 dev br0
mount -t tmpfs none /run
mkdir /run/netns
ip netns add c1
ip link add veth1 type veth peer name eth0 netns c1
ip link set veth1 master br0 up
ip -n c1 link set eth0 up
ip -n c1 addr add 10.88.0.2/24 dev eth0
ip -n c1 link set lo up
echo 1 >/proc/sys/net/ipv4/conf/br0/route_localnet
nft -f - <<END
table ip loopback {
	chain output { type nat hook output priority -100; ip daddr 127.0.0.9 dnat to 10.88.0.2; }
	chain postrouting { type nat hook postrouting priority srcnat; ip saddr 127.0.0.0/8 oifname "br0" masquerade; }
}
END
tc qdisc add dev br0 clsact
# ldb [30]; jeq #127, 2 (drop), or else -1 (go on): the destination, 16 bytes behind the MAC header
tc filter add dev br0 ingress bpf da bytecode "4,48 0 0 30,21 0 1 127,6 0 0 2,6 0 0 4294967295"
seen=
for value in 0 1; do
	echo $value >/proc/sys/net/bridge/bridge-nf-call-iptables
	if ping -c 2 -W 1 127.0.0.9 >/dev/null; then answer=answered; else answer="no answer"; fi
	echo "bridge-nf-call-iptables=$value: $answer"
	seen="$seen$answer;"
done
[ "$seen" = "answered;no answer;" ]
