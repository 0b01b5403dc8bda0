#!/bin/sh
# If the leased address is no longer on the container's interface, DEL of the CNI plugin dhcp succeeds
# but does not return the lease to the server.
#
# Seen with containernetworking/plugins 1.10.0 and busybox 1.35 (Debian 12). The plugin's daemon sends
# DHCPRELEASE from a UDP socket that it binds to the leased address. The bind fails if an ADD failed
# before it set the address, or if DEL has already deleted the interface. The daemon logs the error,
# and the plugin reports success. The server keeps the lease until the lease expires. Output:
#
#	no address on the interface: DEL ends with 0, the server has the lease
#	the address is on the interface: DEL ends with 0, the server has no lease
#
# Needs root, go, ip, and busybox with udhcpd. The script downloads the plugin from the Go module
# proxy. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	version=github.com/containernetworking/plugins@v1.10.0
	dir=$(cd "$tmp" && go mod download -json $version | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	cp "$dir/go.mod" "$dir/go.sum" "$tmp" # Go writes go.sum, and the module's folder is read-only
	chmod u+w "$tmp/go.mod" "$tmp/go.sum"
	(cd "$dir" && CGO_ENABLED=0 go build -modfile="$tmp/go.mod" -o "$tmp/dhcp" ./plugins/ipam/dhcp)
	unshare -mn --propagation private "$0" inside "$tmp"
	exit
fi
tmp=$2
mount -t tmpfs none /run
ip link set lo up
mkdir /run/netns
ip netns add server
ip netns add c1
ip link add eth0 netns server type veth peer name eth0 netns c1
ip -n server addr add 10.88.0.1/24 dev eth0
ip -n server link set eth0 up
ip -n c1 link set eth0 up
printf '%s\n' 'interface eth0' 'start 10.88.0.50' 'end 10.88.0.50' 'lease_file /run/leases' 'pidfile /run/pid' \
	'option subnet 255.255.255.0' 'option lease 3600' >/run/udhcpd.conf
ip netns exec server busybox udhcpd -f /run/udhcpd.conf >/run/log 2>&1 &
server=$!
"$tmp/dhcp" daemon >/run/daemon.log 2>&1 &
daemon=$!
trap 'kill $server $daemon' EXIT
until [ -S /run/cni/dhcp.sock ] && [ -s /run/pid ]; do sleep 0.1; done

plugin() {
	echo '{"cniVersion":"1.0.0","name":"net","type":"bridge","ipam":{"type":"dhcp"}}' |
		CNI_COMMAND=$1 CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 CNI_PATH="$tmp" "$tmp/dhcp" >/dev/null
}
lease() { # prints whether the server has a lease of 10.88.0.50
	rm -f /run/leases
	kill -USR1 $server
	until [ -s /run/leases ]; do sleep 0.1; done
	sleep 0.2
	case $(busybox dumpleases -f /run/leases) in
	*10.88.0.50*expired*) echo no lease ;;
	*10.88.0.50*) echo the lease ;;
	esac
}
plugin ADD
plugin DEL
first=$(lease)
echo "no address on the interface: DEL ends with 0, the server has $first"
plugin ADD # the same client gets the same lease
ip -n c1 addr add 10.88.0.50/24 dev eth0
plugin DEL
second=$(lease)
echo "the address is on the interface: DEL ends with 0, the server has $second"
[ "$first, $second" = "the lease, no lease" ]
