#!/bin/sh
# Fails if the subject of a commit does not have the form "directory: verb ...", with a verb in
# lower case, or is longer than 72 characters. The script checks only the commits after the commit
# in the variable since, because older subjects do not follow this rule.
set -eu
since=5205b419
git cat-file -e "$since" 2>/dev/null || exit 0 # a shallow clone does not have this commit
git log --no-merges --format=%s "$since.." | awk '
	length > 72 { print "longer than 72 characters: " $0; bad = 1 }
	!/^[A-Za-z.][A-Za-z0-9_.\/, -]*: [a-z]/ { print "not \"directory: verb\": " $0; bad = 1 }
	END { exit bad }'
