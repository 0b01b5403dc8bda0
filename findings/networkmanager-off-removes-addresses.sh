#!/bin/sh
# "nmcli networking off" removes addresses that NetworkManager has not added, from a link that
# NetworkManager shows as "connected (externally)". "nmcli networking on" does not restore them.
#
# Seen with NetworkManager 1.42.4 (Debian 12), 1.52.1 (13) and 1.58.1. ip makes a bridge with an
# address. Output:
#
#	before: connected (externally), 192.0.2.1/24
#	off: no address
#	on: no address
#	with unmanaged-devices: unmanaged, off: 192.0.2.1/24
#
# NetworkManager.conf(5) says of an external connection: NetworkManager does not touch the interface.
# Bridges of Docker and of CNI plugins are such links.
#
# Needs root, ip, apt-get and Debian's packages. Packages that are not installed are unpacked in a
# temporary folder. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	mkdir -p "$tmp/partial" "$tmp/root/usr"
	apt-get -qq -y --no-install-recommends -o Dir::Cache::archives="$tmp" -o APT::Sandbox::User=root --download-only install network-manager dbus-daemon >/dev/null
	for package in "$tmp"/*.deb; do [ ! -e "$package" ] || dpkg -x "$package" "$tmp/root"; done
	unshare -mn "$0" inside "$tmp/root"
	exit
fi
mount -t tmpfs none /run
mkdir -p /run/etc /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mount -t overlay -o "lowerdir=$2/usr:/usr" overlay /usr
mount -t sysfs -o ro sysfs /sys # NetworkManager waits for udev, unless /sys is read-only
mount -t tmpfs none /var/lib
mkdir -p /run/dbus /var/lib/NetworkManager /etc/NetworkManager/conf.d
cat >/run/dbus/bus.conf <<'EOF'
<busconfig>
  <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
EOF
ip link set lo up
ip link add br0 type bridge
ip addr add 192.0.2.1/24 dev br0
ip link set br0 up
dbus-daemon --config-file=/run/dbus/bus.conf --nofork --nopidfile 2>/dev/null &
bus=$!
until [ -e /run/dbus/system_bus_socket ]; do sleep 0.1; done
NetworkManager --no-daemon >/run/log 2>&1 &
trap 'kill $! $bus' EXIT
state() { nmcli -g GENERAL.STATE device show br0 2>/dev/null | sed 's/^[0-9]* (\(.*\))$/\1/'; }
address() {
	found=$(ip -o -4 addr show br0 | awk '{ print $4 }')
	echo "${found:-no address}"
}
until [ "$(nmcli -g STARTUP general 2>/dev/null), $(state)" = "started, connected (externally)" ]; do sleep 0.1; done
before="$(state), $(address)"
nmcli networking off
sleep 1
off=$(address)
nmcli networking on
sleep 3
on=$(address)
ip addr add 192.0.2.1/24 dev br0
printf '[keyfile]\nunmanaged-devices=interface-name:br0\n' >/etc/NetworkManager/conf.d/br0.conf
nmcli general reload conf
until [ "$(state)" = unmanaged ]; do sleep 0.1; done
nmcli networking off
sleep 1
unmanaged="$(state), off: $(address)"
echo "before: $before"
echo "off: $off"
echo "on: $on"
echo "with unmanaged-devices: $unmanaged"
[ "$before, $off, $on, $unmanaged" = "connected (externally), 192.0.2.1/24, no address, no address, unmanaged, off: 192.0.2.1/24" ]
