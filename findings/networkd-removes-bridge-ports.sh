#!/bin/sh
# systemd-networkd removes a port from a bridge that another program has made, if a .network file
# matches the port. The file sets only an address, and does not mention a bridge.
#
# Seen with systemd 252 (Debian 12), 257 (13) and 262. Two links are ports of a bridge. Two files
# match one link each, and differ only in the line KeepMaster=yes. Output:
#
#	before: port1 and port2 are on the bridge
#	KeepMaster=no, the default: port1 is on no bridge
#	KeepMaster=yes: port2 is on the bridge
#
# systemd.network(5) says under Bridge= that the link is added to a bridge. A file without Bridge=
# means that the link belongs to none, so networkd also removes ports that Docker or a CNI plugin has
# added. A file with Type=ether or Name=* matches such ports.
#
# Needs root, ip, and systemd-networkd, which need not run. The exit status is 0 if the script sees
# this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
mount -t tmpfs none /run
mount -t sysfs -o ro sysfs /sys # networkd waits for udev, unless /sys is read-only
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases
chown -R systemd-network /run/systemd/netif
ip link set lo up
ip link add br0 up type bridge
for link in port1 port2; do
	ip link add $link up master br0 type veth peer name $link-peer
	ip link set $link-peer up # networkd waits for the carrier
	printf '[Match]\nName=%s\n[Network]\nAddress=192.0.2.1/24\nLinkLocalAddressing=no\n' $link >/run/systemd/network/$link.network
done
echo KeepMaster=yes >>/run/systemd/network/port2.network
where() { # prints whether a link is on the bridge
	if ip -o link show "$1" | grep -q 'master br0'; then echo the bridge; else echo no bridge; fi
}
[ "$(where port1), $(where port2)" = "the bridge, the bridge" ]
echo "before: port1 and port2 are on the bridge"
for program in /usr/lib/systemd/systemd-networkd /lib/systemd/systemd-networkd; do
	[ -x $program ] && break
done
$program >/run/log 2>&1 &
trap 'kill $!' EXIT
for link in port1 port2; do
	until ip -o addr show $link | grep -q 192.0.2.1; do sleep 0.1; done
done
first=$(where port1) second=$(where port2)
echo "KeepMaster=no, the default: port1 is on $first"
echo "KeepMaster=yes: port2 is on $second"
[ "$first, $second" = "no bridge, the bridge" ]
