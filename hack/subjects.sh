#!/bin/sh
# Fails if the subject of a commit is not "directory: verb ...", in lower case and within 72
# characters. It checks only the commits after the commit below, because older subjects do not
# follow this rule.
set -eu
since=5205b419
git cat-file -e "$since" 2>/dev/null || exit 0 # a shallow clone does not have this commit
git log --no-merges --format=%s "$since.." | awk '
	length > 72 { print "longer than 72 characters: " $0; bad = 1 }
	!/^[A-Za-z.][A-Za-z0-9_.\/, -]*: [a-z]/ { print "not \"directory: verb\": " $0; bad = 1 }
	END { exit bad }'
