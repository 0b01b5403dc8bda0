#!/bin/bash
# Runs a command in a virtual machine with an unchanged Debian kernel and the files of this
# machine. It is for features that the kernel of this machine lacks, such as VLANs on bridges.
# Files that the command writes exist only inside the virtual machine. The script needs root.
#
#   hack/vm.sh COMMAND [ARGUMENT...]
#
# Environment variables: SUITE is the Debian release of the kernel: bookworm (6.1),
# bookworm-backports (6.12) or another. TIMEOUT is in seconds; the default is 1800. With ICOUNT=1,
# the virtual machine has one emulated processor, and its clock counts 1 ns for each instruction.
# Measured times then do not depend on other work on this machine. The exit status is that of the
# command.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
suite=${SUITE:-bookworm}
dir=$PWD/.cache/vm/$suite
hack/need.sh qemu-system-x86_64 busybox modprobe xz
if ldd "$(command -v busybox)" >/dev/null 2>&1; then
	echo "busybox is dynamically linked; the virtual machine starts without libraries; as root: apt-get install busybox-static" >&2
	exit 1
fi

fetch() { # downloads a kernel into $dir, with separate package lists for apt
	local apt=(-qq -o Dir::Etc::SourceList="$dir/new/sources" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$dir/new/lists" -o Dir::Cache="$dir/new/cache" -o APT::Sandbox::User=root)
	local mirror packages
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2 !~ /security|updates/ && /debian/ { print $1; exit }')
	rm -rf "$dir"
	mkdir -p "$dir/new/lists/partial" "$dir/new/cache/archives/partial"
	echo "deb $mirror $suite main" >"$dir/new/sources"
	apt-get "${apt[@]}" update
	release=$(apt-cache "${apt[@]}" depends linux-image-amd64 | sed -n 's/^ *Depends: linux-image-\([0-9].*\)$/\1/p' | head -1)
	# In newer suites, the kernel is split into several packages.
	packages=$(apt-cache "${apt[@]}" pkgnames linux- | grep -Fx "$(printf "linux-%s-$release\n" image binary modules base)")
	# shellcheck disable=SC2086 # a list of words
	(cd "$dir/new" && apt-get "${apt[@]}" download $packages)
	for package in "$dir"/new/*.deb; do dpkg -x "$package" "$dir/root"; done
	[ -e "$dir/root/lib" ] || ln -s usr/lib "$dir/root/lib"
	depmod -b "$dir/root" "$release"
	rm -r "$dir/new"
	echo "$release" >"$dir/release"
}
if [ ! -e "$dir/release" ]; then
	echo "missing, fetching Debian's kernel of $suite" >&2
	fetch >&2
fi
release=$(cat "$dir/release")
kernel=$(find "$dir/root" -name "vmlinuz*" | head -1)

# The initial file system contains the modules that are needed to mount the real file system, in
# the order of loading.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/init/bin" "$tmp/init/modules"
cp "$(command -v busybox)" "$tmp/init/bin/busybox"
for module in virtio_pci 9pnet_virtio 9p overlay; do
	modprobe -d "$dir/root" -S "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
	name=$(basename "${file%.xz}")
	case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac >"$tmp/init/modules/$name"
	echo "$name" >>"$tmp/init/order"
done
{
	declare -px | grep -v -E ' (TMPDIR|OLDPWD)='
	printf 'cd %q\n' "$PWD"
	printf '%q ' "$@"
} >"$tmp/init/command"
cat >"$tmp/init/init" <<'END'
#!/bin/busybox sh
# The root file system is the host's, read-only, with a writable file system in memory above it.
/bin/busybox --install -s /bin
mkdir -p /proc /host /memory /new
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module"; done </order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /new
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs run /new/run
mount -t tmpfs tmp /new/tmp
cp /bin/busybox /command /run.sh /new/run/
exec switch_root /new /run/busybox sh /run/run.sh
END
cat >"$tmp/init/run.sh" <<END
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
rm -rf /lib/modules/$release
mkdir -p /lib/modules
ln -s $dir/root/lib/modules/$release /lib/modules/$release
ip link set lo up
/run/busybox stty -F /dev/ttyS1 raw
/run/busybox setsid /bin/bash /run/command </dev/null >/dev/ttyS1 2>&1
echo "exit status \$?" >/dev/ttyS0
/run/busybox poweroff -f
END
chmod +x "$tmp/init/init"
(cd "$tmp/init" && find . | busybox cpio -o -H newc 2>/dev/null) >"$tmp/initramfs"

# Without hardware virtualisation, QEMU 7.2 has two faults with Linux 6.12. The first fault is in
# the instruction CMPXCHG16B, so this instruction is switched off. The second fault is in code
# that another processor has just rewritten, so one thread runs all processors. With ICOUNT, a
# fast string instruction (ERMS) would count as one instruction for each byte that it copies, so
# ERMS is switched off too.
how="-accel tcg,thread=single -cpu max,cx16=off -smp 2"
if [ -n "${ICOUNT:-}" ]; then
	how="-accel tcg,thread=single -cpu max,cx16=off,erms=off -smp 1 -icount shift=0"
elif [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
	how="-accel kvm -cpu host -smp 2"
fi
# shellcheck disable=SC2086 # a list of words
timeout --foreground "${TIMEOUT:-1800}" qemu-system-x86_64 $how -m 2048 -nodefaults -no-reboot -display none -nic none \
	-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
	-kernel "$kernel" -initrd "$tmp/initramfs" \
	-append "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off nowatchdog cryptomgr.notests" \
	-serial "file:$tmp/console" -serial stdio </dev/null || true
status=$(tr -d '\r' <"$tmp/console" | sed -n 's/^exit status \([0-9]*\)$/\1/p')
if [ -z "$status" ]; then
	tail -40 "$tmp/console" >&2
	echo "the virtual machine ended without a status" >&2
	exit 1
fi
exit "$status"
