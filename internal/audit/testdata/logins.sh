#!/bin/sh
# What users do and what is done with their accounts, by Debian's programs. In a mount
# namespace of its own (unshare -m), on copies of /etc and /run: nothing of it stays.
#   logins.sh DIR
set -eu
dir=$1
mkdir "$dir/etc"
cp -a /etc/. "$dir/etc"
mount --bind "$dir/etc" /etc
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
: >/run/utmp
rm -f /etc/nologin
user=gosh-user group=gosh-group

useradd -M -s /bin/sh -u 64111 $user
echo "$user:a long secret" | chpasswd
groupadd -g 64112 $group
usermod -a -G $group $user
passwd -q -l $user
passwd -q -u $user

su $user -c true
! echo wrong | setpriv --reuid 65534 --regid 65534 --clear-groups su $user -c true 2>/dev/null
sudo -n -u $user /bin/true 'two words'
script -qec "login -f $user" /dev/null </dev/null >/dev/null

ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
ssh-keygen -q -t ed25519 -N '' -f "$dir/own"
port=$2
cat >"$dir/sshd_config" <<-END
	ListenAddress 127.0.0.1
	Port $port
	HostKey $dir/host
	AuthorizedKeysFile $dir/own.pub
	StrictModes no
	UsePAM yes
	PidFile none
	PasswordAuthentication no
	PrintMotd no
END
chmod 711 "$dir"
/usr/sbin/sshd -D -e -f "$dir/sshd_config" 2>"$dir/sshd.log" &
sshd=$!
trap 'kill $sshd' EXIT
try() {
	ssh -F none -p "$port" -i "$dir/own" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
		-o IdentitiesOnly=yes -o LogLevel=ERROR "$1@127.0.0.1" true </dev/null
}
n=0
until try $user 2>"$dir/ssh.log"; do # sshd may not listen yet
	n=$((n + 1))
	[ $n -lt 100 ] || { cat "$dir/ssh.log" "$dir/sshd.log" >&2; exit 1; }
	sleep 0.2
done
! try gosh-nobody 2>/dev/null

userdel $user 2>/dev/null
groupdel $group
