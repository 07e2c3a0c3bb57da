#!/bin/sh
# After the files are there: systemd learns of the unit, and runs the new program where the
# old one ran. DPKG_ROOT is set when the root directory is not this system's.
set -e
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart goshawk.service
fi
