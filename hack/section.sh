#!/bin/sh
# Replaces a section of a page by the text on standard input. The section is between the comments
# "NAME" and "end".
#
#   hack/section.sh PAGE NAME
set -eu
page=$1
TEXT=$(cat) NAME=$2 awk '
	$0 == "<!-- end -->" { inside = 0 }
	!inside { print }
	$0 == "<!-- " ENVIRON["NAME"] " -->" { inside = found = 1; print "\n" ENVIRON["TEXT"] "\n" }
	END { exit !found }' "$page" >"$page.new" || { rm "$page.new"; echo "$page has no comment \"$2\"" >&2; exit 1; }
mv "$page.new" "$page"
