#!/bin/sh
# "nmcli connection up" for the connection of an active bridge removes all ports that other programs have
# added to the bridge, even ports that are unmanaged. "nmcli device reapply" and a restart of
# NetworkManager leave these ports on the bridge.
#
# Seen with NetworkManager 1.42.4 (Debian 12) and 1.52.1 (13). NetworkManager makes a bridge, and ip adds
# two ports, of which port2 is unmanaged. The script prints the ports of the bridge. Output:
#
#	before: port1 port2
#	nmcli device reapply: port1 port2
#	restart of NetworkManager: port1 port2
#	nmcli connection up: none
#
# nmcli(1) says that "up" activates a connection. NetworkManager deactivates the active connection first,
# and then releases each port of the bridge. Ports of containers and virtual machines are such ports.
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
ip link add port1 type veth peer name peer1
ip link add port2 type veth peer name peer2
printf '[keyfile]\nunmanaged-devices=interface-name:port2\n' >/etc/NetworkManager/conf.d/port2.conf
dbus-daemon --config-file=/run/dbus/bus.conf --nofork --nopidfile 2>/dev/null &
bus=$!
until [ -e /run/dbus/system_bus_socket ]; do sleep 0.1; done
state() { nmcli -g GENERAL.STATE device show "$1" 2>/dev/null | sed 's/^[0-9]* (\(.*\))$/\1/'; }
start() {
	NetworkManager --no-daemon >/run/log 2>&1 &
	manager=$!
	trap 'kill $manager $bus' EXIT
	until [ "$(state port2)" = unmanaged ]; do sleep 0.1; done
}
ports() {
	sleep 1
	ip -o link show master br0 | sed 's/^[0-9]*: //; s/@.*//' | paste -s -d ' ' | sed 's/^$/none/'
}
start
nmcli connection add type bridge ifname br0 con-name br0 ipv4.method manual ipv4.addresses 192.0.2.1/24 ipv6.method disabled >/run/log
nmcli connection up br0 >/run/log
ip link set port1 master br0 up
ip link set port2 master br0 up
before=$(ports)
nmcli device reapply br0 >/run/log
reapplied=$(ports)
kill $manager
wait $manager
start
until [ "$(state br0)" = connected ]; do sleep 0.1; done
restarted=$(ports)
nmcli connection up br0 >/run/log
up=$(ports)
echo "before: $before"
echo "nmcli device reapply: $reapplied"
echo "restart of NetworkManager: $restarted"
echo "nmcli connection up: $up"
[ "$before, $reapplied, $restarted, $up" = "port1 port2, port1 port2, port1 port2, none" ]
