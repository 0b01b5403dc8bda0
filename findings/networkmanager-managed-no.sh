#!/bin/sh
# NetworkManager does not apply "managed=0" in a section [device-*] to a link that it already
# manages, also not after a restart. It applies "unmanaged-devices" in the section [keyfile] at once.
#
# Seen with NetworkManager 1.42.4 (Debian 12), 1.52.1 (13) and 1.58.1. ip makes a bridge, and
# NetworkManager starts. Output:
#
#	[device-br0] managed=0, reload: connected (externally)
#	[device-br0] managed=0, restart: connected (externally)
#	[keyfile] unmanaged-devices, reload: unmanaged
#
# NetworkManager.conf(5) presents both keys as ways to make a link unmanaged. NetworkManager keeps the
# state of the link in /run/NetworkManager/devices, and this state overrules managed=0.
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
manager=$!
trap 'kill $manager $bus' EXIT
state() { nmcli -g GENERAL.STATE device show br0 2>/dev/null | sed 's/^[0-9]* (\(.*\))$/\1/'; }
conf=/etc/NetworkManager/conf.d/br0.conf
until [ "$(nmcli -g STARTUP general 2>/dev/null), $(state)" = "started, connected (externally)" ]; do sleep 0.1; done
printf '[device-br0]\nmatch-device=interface-name:br0\nmanaged=0\n' >$conf
nmcli general reload conf
sleep 2
reload=$(state)
kill $manager
wait $manager || true
NetworkManager --no-daemon >/run/log 2>&1 &
manager=$!
until [ -n "$(state)" ]; do sleep 0.1; done
sleep 2
restart=$(state)
printf '[keyfile]\nunmanaged-devices=interface-name:br0\n' >$conf
nmcli general reload conf
sleep 2
keyfile=$(state)
echo "[device-br0] managed=0, reload: $reload"
echo "[device-br0] managed=0, restart: $restart"
echo "[keyfile] unmanaged-devices, reload: $keyfile"
[ "$reload, $restart, $keyfile" = "connected (externally), connected (externally), unmanaged" ]
