#!/bin/sh
# install gives bridgeveth the additional names of the reference plugins. DIR is the folder in
# which bridgeveth is installed. The script keeps the replaced plugins in DIR/reference, because
# bridgeveth runs them for attachments that it did not make. uninstall moves the reference plugins
# back.
#
#   hack/dropin.sh install|uninstall DIR
set -eu
verb=$1
cd "$2"
if [ -n "$(find . reference -maxdepth 0 -perm -2 2>/dev/null)" ]; then
	echo "$2: all users can write there or in $2/reference, and root runs these files; run: chmod o-w '$2' '$2'/reference" >&2
	exit 1
fi

# Reports whether a file is bridgeveth. If the file cannot be run, the script ends: it must not
# replace a kept reference plugin by bridgeveth.
ours() {
	line=$(env -i "./$1" 2>&1 </dev/null) || [ $? -lt 126 ] || { echo "$PWD/$1: cannot run the file to find out which plugin it is; delete or replace the file" >&2; exit 1; }
	echo "$line" | grep -q '^CNI .*+bridgeveth\.'
}

for name in bridge host-local portmap firewall loopback; do
	rm -f ".$name.new" "reference/.$name.new" # left by a killed run
	case $verb in
	install)
		if [ -e "$name" ] && ! ours "$name"; then
			mkdir -p reference
			cp -pL "$name" "reference/.$name.new"
			mv -f "reference/.$name.new" "reference/$name"
			echo "$2/$name: was $(env -i "./$name" 2>&1 </dev/null | head -1), which is now reference/$name"
		fi
		if ! [ "$name" -ef bridgeveth ]; then # mv refuses to move a file to another name of the same file
			ln -f bridgeveth ".$name.new"
			mv -f ".$name.new" "$name"
		fi
		;;
	uninstall)
		if [ -e "reference/$name" ]; then
			mv -f "reference/$name" "$name"
		elif [ -e "$name" ] && ours "$name"; then
			rm "$name"
		fi
		;;
	esac
done
[ "$verb" = install ] || [ ! -d reference ] || rmdir reference
