#!/bin/sh
# Puts podman 4.3, the last of Debian's that speaks CNI, and what it starts into
# .cache/podman/bin, from the packages of bookworm. They are unpacked there with their
# libraries, and a static busybox to make an image of, rather than installed: the host's own
# configuration of containers stays as it is. Needs no root.
set -eu
cd "$(dirname "$0")/.."
to=$PWD/.cache/podman
[ -x "$to/bin/podman" ] && exit 0

rm -rf "$to" "$to.new"
new=$to.new
mkdir -p "$new/apt/lists/partial" "$new/root" "$new/bin"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
echo "deb $mirror bookworm main" >"$new/apt/sources"
# The sandbox user of apt may not write here.
set -- -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$new/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
	-o Dir::State::Lists="$new/apt/lists" -o Dir::Cache="$new/apt"
apt-get "$@" update
(cd "$new/apt" && apt-get "$@" download podman conmon crun busybox-static \
	libassuan0 libdevmapper1.02.1 libglib2.0-0 libgpg-error0 libgpgme11 libseccomp2 libsubid4 libsystemd0 libyajl2)
for package in "$new"/apt/*.deb; do dpkg -x "$package" "$new/root"; done
rm -r "$new/apt"
# podman clears the environment of what it starts, so each looks for its libraries itself.
for program in podman conmon crun; do
	cat >"$new/bin/$program" <<END
#!/bin/sh
LD_LIBRARY_PATH=$to/root/usr/lib/x86_64-linux-gnu:$to/root/lib/x86_64-linux-gnu exec $to/root/usr/bin/$program "\$@"
END
	chmod +x "$new/bin/$program"
done
mv "$new" "$to"
