#!/bin/sh
# After the files are gone. What was seen is kept until a purge asks for more.
set -e
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if [ "$1" = purge ]; then
	rm -rf "$DPKG_ROOT/var/lib/goshawk" "$DPKG_ROOT/var/log/goshawk"
fi
