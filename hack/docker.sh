#!/bin/sh
# Downloads Debian's packages of dockerd and of the programs that it starts, and unpacks them into
# .cache/docker/bin. Packages of other releases, such as trixie and sid, go to
# .cache/docker/SUITE/bin. The packages are not installed, because installing would start a daemon
# that changes the host's firewall. With the word moby instead of a release, the script builds the
# dockerd of hack/docker/go.mod into .cache/docker/moby/bin.
#
#   hack/docker.sh [SUITE...]
set -eu
cd "$(dirname "$0")/.."
to=$PWD/.cache/docker
mkdir -p "$to"

if [ ! -x "$to/bin/dockerd" ]; then
	if [ "$(id -u)" = 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get update -qq
		apt-get install -y -qq --no-install-recommends libdevmapper1.02.1 libseccomp2 >&2
	fi
	rm -rf "$to/bin" "$to/root" "$to/new"
	mkdir -p "$to/new"
	# By default, apt downloads as the user _apt, who may not write to this folder.
	(cd "$to/new" && apt-get -o APT::Sandbox::User=root download -qq docker.io containerd runc tini)
	for deb in "$to"/new/*.deb; do dpkg -x "$deb" "$to/root"; done
	mkdir "$to/new/bin"
	for program in "$to"/root/usr/bin/* "$to"/root/usr/sbin/*; do ln -sf "$program" "$to/new/bin"; done
	ln -sf "$to/root/usr/bin/tini-static" "$to/new/bin/docker-init"
	mv "$to/new/bin" "$to/bin"
	rm -r "$to/new"
fi

for suite; do
	[ -x "$to/$suite/bin/dockerd" ] && continue
	new=$to/$suite.new
	rm -rf "$to/$suite" "$new"
	mkdir -p "$new/bin"
	if [ "$suite" = moby ]; then
		echo "building dockerd" >&2
		CGO_ENABLED=0 nice -n 19 go build -C hack/docker -trimpath -ldflags '-s -w' -o "$new/bin/" tool
		# The other programs are those of the host's release.
		for program in "$to"/bin/*; do
			[ -e "$new/bin/${program##*/}" ] || ln -s "../../bin/${program##*/}" "$new/bin"
		done
		mv "$new" "$to/$suite"
		continue
	fi
	hack/unpack.sh "$suite" "$new/root" docker.io containerd runc
	# These programs need a newer C library than the host's, so the loader of their own release
	# starts them. The scripts find the files by their own place, so the folder can be moved.
	for program in "$new"/root/usr/bin/* "$new"/root/usr/sbin/docker*; do
		# shellcheck disable=SC2016 # the script that is written expands these variables
		printf '#!/bin/sh\nroot=$(dirname "$(readlink -f "$0")")/../root\nexec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root%s" "$@"\n' \
			"${program#"$new/root"}" >"$new/bin/${program##*/}"
	done
	chmod +x "$new"/bin/*
	mv "$new" "$to/$suite"
done
