#!/bin/bash
# Runs a command with the programs of another Debian release, in this checkout. hack/root.sh makes
# the folder .cache/distro/SUITE with these programs. The kernel and the Go compiler are those of
# this machine. Files that the command writes outside of the checkout exist only until the command
# ends. Processes that the command starts end with it. The script needs root.
#
#   hack/distro.sh SUITE COMMAND [ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$1
shift
root=$PWD/.cache/distro/$suite

# firewalld is not in the list: its tests mount it over /usr, from the folder of hack/firewalld.sh.
# The list has the packages that it needs.
hack/root.sh "$root" "$suite" busybox-static conmon containerd crun dbus docker.io gir1.2-glib-2.0 iperf3 iproute2 iptables iputils-ping kmod \
	netavark network-manager nftables podman procps python3-dbus python3-gi python3-nftables runc strace systemd tini

# shellcheck disable=SC2016 # the inner shell expands these variables
exec unshare -mp --fork bash -euc '
	root=$1 shared=$2
	shift 2
	mount -t tmpfs memory /mnt
	mkdir /mnt/upper /mnt/work /mnt/new
	new=/mnt/new
	mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$new"
	mount -t tmpfs tmp "$new/tmp"
	mount -t proc proc "$new/proc"
	for folder in /dev /sys $shared; do
		mkdir -p "$new$folder"
		mount --rbind "$folder" "$new$folder"
	done
	cd "$new"
	pivot_root . mnt
	umount -l /mnt
	cd "$OLDPWD"
	# This shell stays process 1, which reaps the child process of each DEL.
	"$@" || exit
' distro "$root" "$PWD $(go env GOROOT GOMODCACHE GOCACHE | xargs)" "$@"
