#!/bin/sh
# Prints the directory that holds Debian's newest cloud kernel of a version (5.10, 6.1, 6.12
# or "newest") for an architecture, unpacked; that of the whole kernel 5.10 ("5.10-x32"), which
# has the x32 ABI as cloud kernels have not; that of "busybox", for guests that cannot run
# this machine's; or that of "systemd", the root of a small Debian that boots with it. Downloads
# go to a cache outside the tree, through a private apt configuration: the machine's own sources
# stay as they are.
#   fetch.sh VERSION|busybox|systemd [ARCHITECTURE]
set -eu
want=$1
arch=${2:-amd64}
cache=${GOSHAWK_KERNEL_CACHE:-/var/cache/goshawk-kernels}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$cache/$arch/lists/partial" "$cache/$arch/archives/partial"
cd "$cache/$arch"
exec 9>"$cache/lock"
flock 9

case $want in
5.10 | 5.10-x32) suites="bullseye bullseye-security" ;;
6.1) suites="bookworm" ;;
6.12) suites="trixie" ;;
newest) suites="trixie-backports" ;;
busybox | systemd) suites="trixie" ;;
*)
	echo "fetch.sh: no suite is known for $want; use 5.10, 5.10-x32, 6.1, 6.12, newest, busybox or systemd" >&2
	exit 2
	;;
esac

# What was fetched within the last month will do.
found=$(find . -maxdepth 1 -name "done-$want" -mtime -30 -exec cat {} +)
if [ -n "$found" ] && [ -d "$found/usr" ]; then
	echo "$cache/$arch/$found"
	exit 0
fi

if [ "$want" = systemd ]; then
	rm -rf "root-$want"
	log=$PWD/debootstrap.log
	debootstrap --arch="$arch" --variant=minbase --include=systemd,systemd-sysv,dbus --keyring="$keyring" \
		"$suites" "root-$want" http://deb.debian.org/debian >"$log" 2>&1 || {
		echo "fetch.sh: debootstrap cannot make a root directory; it ends:" >&2
		tail "$log" >&2
		exit 1
	}
	# Nobody reads in it.
	rm -rf "root-$want"/usr/share/doc "root-$want"/usr/share/man "root-$want"/usr/share/locale \
		"root-$want"/var/cache/apt "root-$want"/var/lib/apt/lists
	echo "root-$want" >"done-$want"
	echo "$cache/$arch/root-$want"
	exit 0
fi

: >"sources-$want.list"
for s in $suites; do
	case $s in
	*-security) base=http://deb.debian.org/debian-security ;;
	*) base=http://deb.debian.org/debian ;;
	esac
	echo "deb [arch=$arch signed-by=$keyring] $base $s main" >>"sources-$want.list"
done
run() { # apt's tools want their command after the options
	tool=$1
	shift
	command "$tool" -o Dir::Etc::sourcelist="$PWD/sources-$want.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD" -o APT::Get::List-Cleanup=0 \
		-o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}
run apt-get -qq update --error-on=any >&2 || {
	echo "fetch.sh: apt cannot fetch the package lists for kernel $want (above is why):" >&2
	cat "sources-$want.list" >&2
	exit 1
}
case $want in
busybox) pattern="^busybox-static\$" ;;
newest) pattern="^linux-image-[0-9].*-cloud-$arch\$" ;;
5.10-x32) pattern="^linux-image-5\.10\.[0-9.-]*-$arch\$" ;;
*) pattern="^linux-image-$(echo "$want" | sed 's/\./\\./')\\..*-cloud-$arch\$" ;;
esac
package=$(run apt-cache search --names-only "$pattern" | cut -d' ' -f1 |
	grep -v -e bpo -e '~' -e '0\.deb' | sort -V | tail -n 1)
if [ -z "$package" ]; then
	echo "fetch.sh: Debian offers no package that matches $pattern" >&2
	exit 1
fi
# From 7.1 the image package is empty, and depends on these.
rm -rf "$package"
for p in "$package" "linux-binary-${package#linux-image-}" "linux-modules-${package#linux-image-}"; do
	run apt-cache show "$p" >/dev/null 2>&1 || continue
	run apt-get -qq download "$p" >&2 || {
		echo "fetch.sh: apt cannot download $p (above is why)" >&2
		exit 1
	}
	dpkg-deb -x "$p"_*.deb "$package"
	rm -f "$p"_*.deb
done
echo "$package" >"done-$want"
echo "$cache/$arch/$package"
