#!/bin/sh
# Downloads podman 4.3 of bookworm, Debian's last podman with CNI, and unpacks it into
# .cache/podman/bin. The script also unpacks the programs that podman starts, their libraries, and
# a static busybox for an image. Nothing is installed, so the host's configuration of containers
# does not change. The script needs no root.
set -eu
cd "$(dirname "$0")/.."
to=$PWD/.cache/podman
[ -x "$to/bin/podman" ] && exit 0

rm -rf "$to" "$to.new"
new=$to.new
mkdir -p "$new/apt/lists/partial" "$new/root" "$new/bin"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
echo "deb $mirror bookworm main" >"$new/apt/sources"
# By default, apt downloads as the user _apt, who may not write to this folder.
set -- -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$new/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
	-o Dir::State::Lists="$new/apt/lists" -o Dir::Cache="$new/apt"
apt-get "$@" update
(cd "$new/apt" && apt-get "$@" download podman conmon crun busybox-static \
	libassuan0 libdevmapper1.02.1 libglib2.0-0 libgpg-error0 libgpgme11 libseccomp2 libsubid4 libsystemd0 libyajl2)
for package in "$new"/apt/*.deb; do dpkg -x "$package" "$new/root"; done
rm -r "$new/apt"
# podman clears the environment of the programs that it starts, so each program sets its own
# library path.
for program in podman conmon crun; do
	cat >"$new/bin/$program" <<END
#!/bin/sh
LD_LIBRARY_PATH=$to/root/usr/lib/x86_64-linux-gnu:$to/root/lib/x86_64-linux-gnu exec $to/root/usr/bin/$program "\$@"
END
	chmod +x "$new/bin/$program"
done
mv "$new" "$to"
