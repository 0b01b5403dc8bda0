#!/bin/sh
# Builds the plugins of earlier commits into .cache/older/COMMIT. The tests use them to check that
# today's plugins can handle the attachments, leases and rules that earlier builds have made.
#
#   hack/older.sh COMMIT...
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0

for commit; do
	to=.cache/older/$commit
	[ -x "$to/ipam-simple" ] && continue
	if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
		echo "this clone does not have commit $commit; run git fetch --unshallow" >&2
		exit 1
	fi
	rm -rf "$to"
	mkdir -p "$to/source"
	git archive "$commit" | tar -x -C "$to/source"
	for program in bridgeveth ipam-simple; do
		package=./cmd/$program
		[ -d "$to/source/$package" ] || package=./plugins/$program
		[ ! -f "$to/source/$package/main.go" ] || go build -C "$to/source" -trimpath -o "../$program.new" "$package"
	done
	[ -f "$to/ipam-simple.new" ] || ln "$to/bridgeveth.new" "$to/ipam-simple.new" # one program has both names
	rm -r "$to/source"
	mv "$to/bridgeveth.new" "$to/bridgeveth"
	mv "$to/ipam-simple.new" "$to/ipam-simple"
done
