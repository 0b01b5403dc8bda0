#!/bin/sh
# Loads the kernel module br_netfilter if it is missing, because the tests and the demo need it:
# without the module, iptables does not see bridged packets. Loading switches iptables on for the
# bridged packets of the whole host. The script therefore switches it off again in the host's own
# network namespace.
set -eu
[ -e /proc/sys/net/bridge ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing; as root: modprobe br_netfilter" >&2
	exit 1
fi
echo "missing, loading the kernel module br_netfilter" >&2
modprobe br_netfilter
for family in ip ip6; do echo 0 >/proc/sys/net/bridge/bridge-nf-call-${family}tables; done
