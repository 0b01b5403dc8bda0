#!/bin/bash
# Builds the files of a release into .cache/release, and prints the next steps. The script pushes
# nothing.
#
#   hack/release.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
out=.cache/release
fail() { echo "$*" >&2; exit 1; }

# Prints the text below a heading of CHANGELOG.md, with one line for each entry: the release page
# shows a line break at the end of each line.
section() { # HEADING
	awk -v heading="## $1" '
		/^## / { inside = $0 == heading; next }
		!inside { next }
		/^  / { sub(/^ +/, ""); line = line " " $0; next }
		{ if (NR > 1 && started) print line; line = $0; started = 1 }
		END { print line }' CHANGELOG.md | sed '/./,$!d'
}

[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "VERSION: $version is no version such as v0.1.0"
[ -z "$(git status --porcelain)" ] || fail "the checkout has changes that are not committed: $(git status --porcelain | head -1)"
[ -z "$(git tag --list "$version")" ] || [ "$(git rev-parse "$version^{commit}")" = "$(git rev-parse HEAD)" ] ||
	fail "the tag $version is another commit; check it out, or choose the next version"
[ -n "$(section "$version")" ] || fail "CHANGELOG.md has no section \"## $version\"; write it from the lines below Unreleased"
[ -z "$(section Unreleased)" ] || fail "CHANGELOG.md has changes below Unreleased; move them to the section $version"

make packages VERSION="$version"
rm -rf $out
mkdir -p $out/files
cp .cache/packages/* $out/files/
section "$version" >$out/NOTES.md

cat <<END
$out/files has the packages, the lists of modules and SHA256SUMS; $out/NOTES.md has the release notes.
Nothing is published yet. Next steps, after the tests of docs/release.md:

  git tag -s $version -m "bridgeveth $version"
  gpg --armor --detach-sign $out/files/SHA256SUMS
  git push origin $version

The workflow "Release" then creates a draft. Compare its SHA256SUMS with $out/files/SHA256SUMS,
upload SHA256SUMS.asc, and publish the draft.
END
