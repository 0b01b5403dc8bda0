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
# Measured times then do not depend on other work on this machine. With ARCH=arm64, the virtual
# machine has an emulated ARM processor and Debian's programs for arm64. Of this machine's files, it
# then has only this checkout. The exit status is that of the command.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
suite=${SUITE:-bookworm}
arch=${ARCH:-amd64}
case $arch in
amd64) dir=$PWD/.cache/vm/$suite qemu=qemu-system-x86_64 console=ttyS0 output=ttyS1 shared=/ ;;
arm64) dir=$PWD/.cache/vm/$suite-arm64 qemu=qemu-system-aarch64 console=ttyAMA0 output=ttyS0 shared=$dir/root ;;
*) echo "ARCH: there is no virtual machine for $arch; use amd64 or arm64" >&2; exit 1 ;;
esac
hack/need.sh $qemu busybox modprobe xz
if [ $arch = amd64 ] && ldd "$(command -v busybox)" >/dev/null 2>&1; then
	echo "busybox is dynamically linked; the virtual machine starts without libraries; as root: apt-get install busybox-static" >&2
	exit 1
fi

fetch() { # downloads a kernel into $dir, with separate package lists for apt
	local apt=(-qq -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o Dir::Etc::SourceList="$dir/new/sources" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$dir/new/lists" -o Dir::Cache="$dir/new/cache" -o APT::Sandbox::User=root)
	local mirror packages
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2 !~ /security|updates/ && /debian/ { print $1; exit }')
	rm -rf "$dir"
	mkdir -p "$dir/new/lists/partial" "$dir/new/cache/archives/partial"
	echo "deb $mirror $suite main" >"$dir/new/sources"
	apt-get "${apt[@]}" update
	release=$(apt-cache "${apt[@]}" depends "linux-image-$arch" | sed -n 's/^ *Depends: linux-image-\([0-9].*\)$/\1/p' | head -1)
	# In newer suites, the kernel is split into several packages.
	packages=$(apt-cache "${apt[@]}" pkgnames linux- | grep -Fx "$(printf "linux-%s-$release\n" image binary modules base)")
	# shellcheck disable=SC2086 # a list of words
	(cd "$dir/new" && apt-get "${apt[@]}" download $packages)
	for package in "$dir"/new/*.deb; do dpkg -x "$package" "$dir/root"; done
	if [ $arch = arm64 ]; then
		hack/unpack.sh "$suite" "$dir/root" base-files bash busybox-static coreutils iproute2 iptables iputils-ping kmod nftables util-linux zlib1g
		ln -s bash "$dir/root/bin/sh"
	fi
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
cp "$([ $arch = amd64 ] && command -v busybox || echo "$shared/bin/busybox")" "$tmp/init/bin/busybox"
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
# The root file system is the host's, read-only, with a writable file system in memory above it. An
# ARM machine has another root file system, and the checkout of the host in it.
/bin/busybox --install -s /bin
mkdir -p /proc /host /memory /new
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module"; done </order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /new
if read -r checkout </mount; then
	mkdir -p "/new$checkout"
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro checkout "/new$checkout"
fi
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
if [ ! -e /lib/modules/$release/modules.dep ]; then
	rm -rf /lib/modules/$release
	mkdir -p /lib/modules
	ln -s $dir/root/lib/modules/$release /lib/modules/$release
fi
ip link set lo up
/run/busybox stty -F /dev/$output raw
/run/busybox setsid /bin/bash /run/command </dev/null >/dev/$output 2>&1
echo "exit status \$?" >/dev/$console
/run/busybox poweroff -f
END
[ $arch = amd64 ] || echo "$PWD" >"$tmp/init/mount"
chmod +x "$tmp/init/init"
(cd "$tmp/init" && find . | busybox cpio -o -H newc 2>/dev/null) >"$tmp/initramfs"

files=(-virtfs "local,path=$shared,mount_tag=host,security_model=none,readonly=on,multidevs=remap")
serial=(-serial stdio)
if [ $arch = arm64 ]; then
	files+=(-virtfs "local,path=$PWD,mount_tag=checkout,security_model=none,readonly=on,multidevs=remap")
	# This machine has only one serial port of its own.
	serial=(-chardev stdio,id=output -device pci-serial,chardev=output)
fi

# Without hardware virtualisation, QEMU 7.2 has two faults with Linux 6.12. The first fault is in
# the instruction CMPXCHG16B, so this instruction is switched off. The second fault is in code
# that another processor has just rewritten, so one thread runs all processors. With ICOUNT, a
# fast string instruction (ERMS) would count as one instruction for each byte that it copies, so
# ERMS is switched off too.
how="-accel tcg,thread=single -cpu max,cx16=off -smp 2"
if [ -n "${ICOUNT:-}" ]; then
	how="-accel tcg,thread=single -cpu max,cx16=off,erms=off -smp 1 -icount shift=0"
elif [ $arch = arm64 ]; then
	how="-machine virt -accel tcg,thread=multi -cpu max,pauth-impdef=on -smp 2"
elif [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
	how="-accel kvm -cpu host -smp 2"
fi
# shellcheck disable=SC2086 # a list of words
timeout --foreground "${TIMEOUT:-1800}" $qemu $how -m 2048 -nodefaults -no-reboot -display none -nic none \
	"${files[@]}" \
	-kernel "$kernel" -initrd "$tmp/initramfs" \
	-append "console=$console loglevel=4 panic=-1 oops=panic mitigations=off nowatchdog cryptomgr.notests" \
	-serial "file:$tmp/console" "${serial[@]}" </dev/null || true
status=$(tr -d '\r' <"$tmp/console" | sed -n 's/^exit status \([0-9]*\)$/\1/p')
if [ -z "$status" ]; then
	tail -40 "$tmp/console" >&2
	echo "the virtual machine ended without a status" >&2
	exit 1
fi
exit "$status"
