#!/bin/bash
# Builds the deb and rpm packages of both architectures into a folder, with SHA256SUMS and a list of
# all modules of each program (SBOM). The same commit always gives the same bytes.
#
#   hack/packages.sh VERSION FOLDER
set -eu
cd "$(dirname "$0")/.."
version=$1 out=$2
tools=$PWD/.cache/bin
# Times in the packages are the time of the commit, so that two builds are equal.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export TZ=UTC
umask 022

# Debian and rpm need a version that begins with a digit. The tilde sorts a build without a tag
# before the first release.
case $version in
v[0-9]*) PACKAGE_VERSION=${version#v} ;;
*) PACKAGE_VERSION=0.0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S).$version ;;
esac
export PACKAGE_VERSION=${PACKAGE_VERSION//-/+}

# Lays out the files of the packages below $ROOT.
lay_out() {
	local bin=$ROOT/bin usr=$ROOT/bridgeveth
	install -D "$bin/bvctl" "$usr/sbin/bvctl"
	install -D "$bin/bridgeveth-pool" "$usr/sbin/bridgeveth-pool"
	install -D "$bin/bridgeveth-node" "$ROOT/bridgeveth-node/sbin/bridgeveth-node"
	for unit in dist/bridgeveth-*.{service,timer}; do
		# The comment in each unit says how to install it from a clone.
		sed -e 's|/usr/local/sbin|/usr/sbin|; s|cp dist/.* && ||' "$unit" | install -D -m 644 /dev/stdin "$usr/lib/systemd/system/${unit##*/}"
	done
	install -D -m 644 dist/packages/bridgeveth-node.service "$ROOT/bridgeveth-node/lib/systemd/system/bridgeveth-node.service"
	mkdir -p "$usr/lib/firewalld"
	cp -r dist/firewalld/* "$usr/lib/firewalld/"
	install -D -m 644 -t "$usr/share/man/man8" "$ROOT"/man/b*.8.gz "$ROOT/man/ipam-simple.8.gz"
	install -D -m 644 -t "$usr/share/man/man5" "$ROOT"/man/*.5.gz
	mkdir -p "$ROOT/bridgeveth-node/share/man/man8"
	mv "$usr/share/man/man8/bridgeveth-node.8.gz" "$ROOT/bridgeveth-node/share/man/man8/"
	cp -r "$ROOT/completion/." "$usr/share/"
	install -D -m 644 -t "$usr/share/doc/bridgeveth/examples" conf/*.conflist dist/grafana/bridgeveth.json dist/systemd-networkd/* dist/NetworkManager/*
	install -D -m 644 -t "$usr/share/bridgeveth" conf/bridgeveth.schema.json
	install -D -m 644 -t "$ROOT/bridgeveth-node/share/doc/bridgeveth-node/examples" deploy/base/rbac.yaml
	for package in bridgeveth bridgeveth-node bridgeveth-dropin; do
		install -D -m 644 dist/packages/copyright "$ROOT/$package/share/doc/$package/copyright"
		mkdir -p "$ROOT/changelog"
		printf '%s (%s) unstable; urgency=medium\n\n  * See https://github.com/bridgeveth/bridgeveth/blob/main/CHANGELOG.md\n\n -- bridgeveth <bridgeveth@users.noreply.github.com>  %s\n' \
			"$package" "$PACKAGE_VERSION" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$ROOT/changelog/$package.gz"
	done
	cp dist/packages/* "$ROOT/"
	# rpm needs the type doc, which nfpm does not know for folders.
	for package in bridgeveth bridgeveth-node; do
		(cd "$ROOT" && find "$package/share/man" "$package/share/doc" -type f) | sort | while read -r file; do
			echo "  - {src: $file, dst: /usr/${file#"$package/"}, packager: deb}"
			echo "  - {src: $file, dst: /usr/${file#"$package/"}, type: doc, packager: rpm}"
		done | sed -i '/adds the documentation here/r /dev/stdin' "$ROOT/$package.yaml"
	done
	find "$ROOT" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

rm -rf "$out" "$out.root"
mkdir -p "$out"
for ARCH in amd64 arm64; do
	export ARCH ROOT=$out.root/$ARCH
	GOARCH=$ARCH make -s build node pool VERSION="$version" BIN="$ROOT/bin"
	if [ $ARCH = amd64 ]; then
		# The manual pages and completions are the same for both architectures.
		programs=$ROOT/bin
		ln -s "$tools/go-md2man" "$programs/go-md2man"
		hack/man.sh "$programs" "$PACKAGE_VERSION" "$ROOT/man"
		mkdir -p "$ROOT"/completion/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
		"$programs/bvctl" completion bash >"$ROOT/completion/bash-completion/completions/bvctl"
		"$programs/bvctl" completion zsh >"$ROOT/completion/zsh/vendor-completions/_bvctl"
		"$programs/bvctl" completion fish >"$ROOT/completion/fish/vendor_completions.d/bvctl.fish"
	else
		cp -r "$out.root/amd64/man" "$out.root/amd64/completion" "$ROOT/"
	fi
	lay_out
	for package in bridgeveth bridgeveth-node; do
		for format in deb rpm; do
			(cd "$ROOT" && "$tools/nfpm" package --config "$package.yaml" --packager $format --target "$out/" >/dev/null)
		done
	done
	for program in bridgeveth bvctl bridgeveth-node bridgeveth-pool; do
		"$tools/cyclonedx-gomod" bin -json -noserial -notimestamp -version "$PACKAGE_VERSION" -output "$out/${program}_${PACKAGE_VERSION}_$ARCH.cdx.json" "$ROOT/bin/$program" 2>/dev/null
	done
done
(cd "$out.root/amd64" && "$tools/nfpm" package --config bridgeveth-dropin.yaml --packager deb --target "$out/" >/dev/null)
rm -rf "$out.root"
(cd "$out" && sha256sum -- *.deb *.rpm *.json >SHA256SUMS)
