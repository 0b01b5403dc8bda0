#!/bin/sh
# In a process namespace, such as a container's, /proc/locks does not list a lock of flock(2) if the
# process that took the lock has ended, and does not list those who wait for this lock. The lock is
# nevertheless held, by a process that has inherited the file. In the first process namespace of
# the host, /proc/locks lists both.
#
# Seen with Linux 6.18 and util-linux 2.38.1. A shell takes a lock by the usual "flock 9", which is a
# program that ends at once, and another flock waits for the lock. Output:
#
#	host: held 1, waiting 1, lock is free: no
#	process namespace: held 0, waiting 0, lock is free: no
#
# locks_show and locks_translate_pid in fs/locks.c leave out a lock whose process has no number in the
# process namespace of /proc. lslocks(8) and error messages that name the holder of a lock, such as
# that of a lock file in /run, then name nobody.
#
# Needs root and flock. Run the script in the first process namespace, not in a container. The exit
# status is 0 if the script sees this behaviour.
set -eu
case ${1:-} in
'')
	host=$("$0" look host)
	inside=$(unshare -mp --fork sh -c 'mount -t proc proc /proc; exec "$0" look "process namespace"' "$0")
	echo "$host"
	echo "$inside"
	[ "$host; $inside" = "host: held 1, waiting 1, lock is free: no; process namespace: held 0, waiting 0, lock is free: no" ]
	exit
	;;
esac
file=$(mktemp)
exec 9>"$file"
flock 9
flock "$file" true 9>&- >&2 & # opens the file itself, and waits
waiter=$!
until [ "$(cut -d' ' -f1 "/proc/$waiter/syscall")" = 73 ]; do sleep 0.1; done # flock(2) on amd64
inode=$(stat -c %i "$file")
held=$(grep -v -e '->' /proc/locks | grep -c ":$inode ") || true
waiting=$(grep -e '->' /proc/locks | grep -c ":$inode ") || true
if flock -n "$file" true; then free=yes; else free=no; fi
echo "$2: held $held, waiting $waiting, lock is free: $free"
exec 9>&-
wait
rm "$file"
