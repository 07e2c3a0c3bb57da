#!/bin/sh
# A user who comes by su, sudo and login, and one who is refused, by Debian's programs. In a mount
# namespace of its own (unshare -m), on copies of /etc and /run: nothing of it stays.
#   logins.sh DIR
set -eu
dir=$1
mkdir "$dir/etc"
cp -a /etc/. "$dir/etc"
mount --bind "$dir/etc" /etc
mount -t tmpfs none /run
: >/run/utmp
rm -f /etc/nologin
printf '#!/bin/sh\nexec /bin/true "by login"\n' >"$dir/shell"
chmod 755 "$dir/shell"
useradd -M -u 64113 -s "$dir/shell" gosh-par
su -s /bin/sh gosh-par -c '/bin/true "by su"'
sudo -n -u gosh-par /bin/true 'by sudo'
script -qec 'login -f gosh-par' /dev/null </dev/null >/dev/null
! echo wrong | setpriv --reuid 65534 --regid 65534 --clear-groups su gosh-par -c true 2>/dev/null
userdel gosh-par 2>/dev/null
