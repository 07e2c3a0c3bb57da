#!/bin/sh
# Before the files go; not before an upgrade, which brings others (rpm calls with the number of
# versions that stay).
set -e
case "$1" in
remove | deconfigure | 0)
	if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
		systemctl disable --now goshawk.service || true
	fi
	;;
esac
