#!/bin/sh
# keepalived with use_vmac sets the sysctls arp_ignore and arp_filter of the VRRP instance's interface
# to 1, and does not reset them when it stops.
#
# Seen with keepalived 2.2.7 (Debian 12) and 2.3.3 (13). A host has the address 203.0.113.1 on its
# loopback device. Another host on the network has a route to this address through its network card.
# keepalived starts, becomes the master, and is stopped. Output:
#
#	before: arp_ignore 0, arp_filter 0, 203.0.113.1 answers
#	keepalived runs: arp_ignore 1, arp_filter 1, 203.0.113.1 does not answer
#	keepalived has stopped: arp_ignore 1, arp_filter 1, 203.0.113.1 does not answer
#
# With arp_ignore=1, the kernel answers ARP requests only for addresses of the interface on which they
# arrive. So neighbours no longer reach addresses of other interfaces, until somebody resets the sysctl.
# keepalived logs a clean stop.
#
# Needs root, ip, ping, apt-get and Debian's packages. Packages that are not installed are unpacked in a
# temporary folder. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	mkdir -p "$tmp/partial" "$tmp/root/usr"
	apt-get -qq -y --no-install-recommends -o Dir::Cache::archives="$tmp" -o APT::Sandbox::User=root --download-only install keepalived >/dev/null
	for package in "$tmp"/*.deb; do [ ! -e "$package" ] || dpkg -x "$package" "$tmp/root"; done
	unshare -mnp --fork "$0" inside "$tmp/root"
	exit
fi
mount -t overlay -o "lowerdir=$2/usr:/usr" overlay /usr
mount -t tmpfs none /run
mount -t sysfs none /sys
mkdir /run/netns
PATH=$PATH:/usr/sbin:/sbin
export LD_LIBRARY_PATH="$2/lib/$(uname -m)-linux-gnu"
ip netns add neighbour
ip link add uplink type veth peer name eth0 netns neighbour
ip link set lo up
ip addr add 203.0.113.1/32 dev lo
ip addr add 192.0.2.1/24 dev uplink
ip link set uplink up
ip -n neighbour addr add 192.0.2.2/24 dev eth0
ip -n neighbour link set eth0 up
ip -n neighbour route add 203.0.113.1 dev eth0
cat >/run/keepalived.conf <<'CONF'
vrrp_instance a {
	interface uplink
	use_vmac
	state MASTER
	virtual_router_id 51
	priority 150
	virtual_ipaddress {
		192.0.2.200/24
	}
}
CONF
sysctls=/proc/sys/net/ipv4/conf/uplink
state() {
	ip -n neighbour neigh flush dev eth0
	answers="does not answer"
	! ip netns exec neighbour ping -c 1 -w 3 203.0.113.1 >/dev/null 2>&1 || answers=answers
	echo "arp_ignore $(cat $sysctls/arp_ignore), arp_filter $(cat $sysctls/arp_filter), 203.0.113.1 $answers"
}
before=$(state)
keepalived --dont-fork --log-console --use-file /run/keepalived.conf >/run/log 2>&1 &
keepalived=$!
for _ in $(seq 100); do
	ip -o addr | grep -q 192.0.2.200 && break
	sleep 0.2
done
running=$(state)
kill $keepalived
wait $keepalived
stopped=$(state)
echo "before: $before"
echo "keepalived runs: $running"
echo "keepalived has stopped: $stopped"
changed="arp_ignore 1, arp_filter 1, 203.0.113.1 does not answer"
[ "$before, $running, $stopped" = "arp_ignore 0, arp_filter 0, 203.0.113.1 answers, $changed, $changed" ]
