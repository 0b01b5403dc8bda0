#!/bin/bash
# Tests the packages as a user installs them, on a clean Debian system of each suite: installs
# them, runs containers by containerd, upgrades, and removes them. Everything runs in namespaces of
# its own, on a temporary file system above .cache/roots/SUITE. The script needs root.
#
#   hack/test-packages.sh PACKAGES SUITE...
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" != --inside ]; then
	packages=$(realpath "$1")
	for suite in "${@:2}"; do
		# lintian needs a virtual package, which debootstrap does not find: perl-openssl-defaults has it.
		hack/root.sh "$PWD/.cache/roots/$suite" "$suite" containerd containernetworking-plugins iproute2 iptables iputils-ping lintian man-db nftables \
			perl-openssl-defaults systemd
		# When the first process of the PID namespace ends, the kernel kills the others.
		unshare --mount --net --pid --ipc --uts --fork --kill-child "$0" --inside "$packages" "$suite"
	done
	exit
fi

packages=$2 suite=$3
cgroup=bridgeveth-packages-$suite-$RANDOM
work=/run/bridgeveth-packages
mount -t tmpfs tmpfs /run
mkdir -p $work/{upper,work,root}
root=$work/root
mount -t overlay overlay -o "lowerdir=$PWD/.cache/roots/$suite,upperdir=$work/upper,workdir=$work/work" $root
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount --rbind /sys/fs/cgroup $root/sys/fs/cgroup
mount --rbind /dev $root/dev
mount -t tmpfs tmpfs $root/run
mkdir -p $root/var/lib/containerd $root/packages
mount -t tmpfs tmpfs $root/var/lib/containerd
mount --bind "$packages" $root/packages
cp .cache/containerd/image.tar $root/image.tar
ip link set lo up

# Removes the cgroups, which outlive the namespaces.
end() {
	status=$?
	kill "$containerd" 2>/dev/null || true
	for task in $(in_root ctr tasks ls -q 2>/dev/null); do in_root ctr tasks kill -s SIGKILL "$task" >/dev/null 2>&1 || true; done
	# A cgroup can be removed as soon as its processes have ended.
	for _ in $(seq 300); do
		find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
		[ -n "$(find /sys/fs/cgroup -type d -name "$cgroup*" -print -quit)" ] || break
		sleep 0.1
	done
	[ $status = 0 ] || echo "$suite: FAILED" >&2
}
containerd=
trap end EXIT

in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 chroot $root "$@"; }
fail() { echo "$suite: $*" >&2; exit 1; }
step() { echo "$suite: $*"; }

# Runs a command of a new user, who has only the packages, and notes the command. With by=user, the
# functions below do so too.
user() {
	echo "$*" >>$work/commands
	in_root "$@"
}

# Prints what the packages may change: files, links, rules. dpkg removes the empty folder /opt, and
# the table of iptables, without rules, stays after the last rule.
state() {
	in_root find /etc /opt /usr /var/lib/dpkg/diversions -mindepth 1 -printf '%p %y %l\n' 2>/dev/null | sort
	in_root dpkg -l | awk '/^i/ { print $2 }'
	ip -o link | sed 's/^[0-9]*: //'
	nft list ruleset | grep -P '^\t\t' | grep -v 'type .* hook' || true
}

# Prints the name of the plugin that answers under a path, and its version.
who() { in_root env -i "$1" 2>&1 </dev/null | head -1; }

# Installs packages without the network: the packages depend on each other only.
install_packages() { ${by:-in_root} apt-get -qq install -y --no-install-recommends --allow-downgrades "$@" >$work/apt.log 2>&1 || { cat $work/apt.log; fail "apt-get install $*"; }; }

# Starts a container that sleeps.
run() { # NAME
	${by:-in_root} ctr run --rm --cni --cgroup "/$cgroup/$1" docker.io/library/test:latest "$1" sleep 600 >$work/"$1".log 2>&1 &
	for _ in $(seq 600); do
		in_root ctr tasks ls 2>/dev/null | grep -q "^$1 .*RUNNING" && return
		sleep 0.1
	done
	cat $work/"$1".log
	fail "the container $1 does not run"
}
address() { in_root bvctl leases | awk -v name="default-$1" '$3 == name { sub(/\/.*/, "", $2); print $2; exit }'; }
ping_container() { # FROM TO
	in_root ctr tasks exec --exec-id "ping-$RANDOM" "$1" ping -c 1 -W 5 "$(address "$2")" >/dev/null || fail "$1 does not reach $2: $3"
}

same_state() { diff <(echo "$before") <(state) || fail "the removal leaves these differences"; }

before=$(state)
version=$(dpkg-deb -f "$packages"/bridgeveth_*_amd64.deb Version)

step "make a previous version of the packages"
mkdir $root/previous
for package in bridgeveth_"${version}"_amd64 bridgeveth-dropin_"${version}"_all; do
	dpkg-deb -R "$packages/$package.deb" $work/unpacked
	sed -i "s/$version/0.0~0/" $work/unpacked/DEBIAN/control
	dpkg-deb -b $work/unpacked $root/previous >/dev/null
	rm -r $work/unpacked
done
in_root containerd >$work/containerd.log 2>&1 &
containerd=$!
for _ in $(seq 600); do in_root ctr version >/dev/null 2>&1 && break; sleep 0.1; done
in_root ctr images import --index-name docker.io/library/test:latest /image.tar >/dev/null

step "install the previous version, and run a container by containerd"
started=$SECONDS
by=user install_packages /previous/bridgeveth_0.0~0_amd64.deb
user mkdir -p /etc/cni/net.d
user sh -c "bvctl config new --for containerd --subnet 10.86.0.0/16 >/etc/cni/net.d/10-containerd.conflist"
by=user run one
user bvctl doctor || fail "bvctl doctor"
for file in bash-completion/completions/bvctl zsh/vendor-completions/_bvctl fish/vendor_completions.d/bvctl.fish; do
	grep -q __complete $root/usr/share/$file || fail "/usr/share/$file does not ask bvctl"
done
in_root bvctl __complete doctor default-o 2>/dev/null | grep -q '^default-one$' || fail "the completion does not offer the container default-one"

step "upgrade to $version"
run two
ping_container one two "before the upgrade"
by=user install_packages "/packages/bridgeveth_${version}_amd64.deb"
in_root dpkg -V bridgeveth
ping_container one two "after the upgrade"
in_root bvctl repair | grep -q '^nothing was missing$' || fail "the upgrade has broken rules"
run three
ping_container three one "a container that the new version attached"

step "remove everything"
for name in two three; do in_root ctr tasks kill -s SIGKILL $name >/dev/null; done
user ctr tasks kill -s SIGKILL one >/dev/null
for _ in $(seq 600); do [ -z "$(in_root ctr containers ls -q)" ] && break; sleep 0.1; done
user apt-get -qq purge -y bridgeveth >/dev/null 2>&1
user rm /etc/cni/net.d/10-containerd.conflist
rmdir --ignore-fail-on-non-empty $root/etc/cni/net.d $root/etc/cni
step "a new user needs $(wc -l <$work/commands) commands; with the checks between them, they took $((SECONDS - started)) seconds:"
sed 's/^/    /' $work/commands
same_state

step "install and remove bridgeveth-dropin"
theirs=$(who /usr/lib/cni/bridge)
install_packages /previous/bridgeveth_0.0~0_amd64.deb
in_root cp /usr/lib/cni/portmap /opt/cni/bin/portmap # a plugin that no package installed
install_packages /previous/bridgeveth_0.0~0_amd64.deb /previous/bridgeveth-dropin_0.0~0_all.deb
install_packages "/packages/bridgeveth_${version}_amd64.deb" "/packages/bridgeveth-dropin_${version}_all.deb"
for dir in /usr/lib/cni /opt/cni/bin; do
	for name in bridge host-local portmap firewall loopback; do
		who $dir/$name | grep -q "^CNI $name plugin .*+bridgeveth\." || fail "$dir/$name is $(who $dir/$name)"
	done
done
[ "$(who /usr/lib/cni/reference/bridge)" = "$theirs" ] || fail "the reference plugin bridge is not kept"
[ -x $root/opt/cni/bin/reference/portmap ] || fail "the plugin portmap of /opt/cni/bin is not kept"
in_root apt-get -qq purge -y bridgeveth-dropin >/dev/null 2>&1
[ "$(who /usr/lib/cni/bridge)" = "$theirs" ] || fail "after the removal, bridge is $(who /usr/lib/cni/bridge)"
who /opt/cni/bin/portmap | grep -v -q bridgeveth || fail "after the removal, portmap is $(who /opt/cni/bin/portmap)"
in_root rm /opt/cni/bin/portmap
in_root dpkg -V containernetworking-plugins || fail "files of containernetworking-plugins have changed"
in_root apt-get -qq purge -y bridgeveth >/dev/null 2>&1
same_state

step "check by lintian and systemd-analyze"
in_root sh -c "lintian --allow-root --fail-on error,warning /packages/*_amd64.deb /packages/*_all.deb" || fail lintian
install_packages /packages/bridgeveth_"${version}"_amd64.deb /packages/bridgeveth-node_"${version}"_amd64.deb
in_root sh -c 'systemd-analyze verify --man=no /usr/lib/systemd/system/bridgeveth-*' || fail "systemd-analyze verify"
for page in bridgeveth.8 ipam-simple.8 bvctl.8 bvctl-doctor.8 bvctl-metrics.8 bridgeveth-conf.5 bridgeveth-pool.8 bridgeveth-node.8; do
	in_root man --warnings -l "/usr/share/man/man${page##*.}/$page.gz" 2>&1 >/dev/null | sed "s/^/$page: /"
done
step passed
