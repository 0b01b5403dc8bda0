#!/bin/bash
# Makes a folder with a Debian system of a suite and some packages, by debootstrap. If the folder
# exists, the script does nothing. The script needs root.
#
#   hack/root.sh FOLDER SUITE PACKAGE...
set -euo pipefail
cd "$(dirname "$0")/.."
root=$1 suite=$2
shift 2
[ ! -e "$root" ] || exit 0
hack/need.sh debootstrap unshare
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
echo "missing, installing Debian $suite into $root" >&2
rm -rf "$root.new"
mkdir -p "${root%/*}"
fail() { tail "$root.log" >&2; exit 1; }
packages=$(IFS=,; echo "$*")
debootstrap --foreign --variant=minbase --include="$packages" "$suite" "$root.new" "$mirror" >"$root.log" 2>&1 || fail
# Packages that are configured, or installed later, must not start daemons.
printf '#!/bin/sh\nexit 101\n' >"$root.new/usr/sbin/policy-rc.d"
chmod +x "$root.new/usr/sbin/policy-rc.d"
# A daemon that starts nevertheless cannot change the firewall of this machine, and it ends with
# debootstrap.
unshare -mnp --fork chroot "$root.new" /debootstrap/debootstrap --second-stage >>"$root.log" 2>&1 || fail
mv "$root.new" "$root"
