package audit

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// decodeCase is records of one event, without their heads, and what they become: for each
// event its kind and what some of its columns hold, as SQL shows them; - is NULL.
type decodeCase struct {
	name    string
	opt     decoderOptions
	lines   string
	want    []string
	counted string // a counter that must be 1, "kind what reason"
}

const who = " ppid=10 pid=20 auid=1000 uid=1001 gid=1002 euid=1003 suid=1004 fsuid=1005 egid=1006 sgid=1007 fsgid=1008 tty=pts3 ses=7 comm=\"c\" exe=\"/bin/c\" key=(null)"

func (c *decodeCase) records(t testing.TB) []logRecord {
	t.Helper()
	numbers := map[string]uint16{}
	for n, name := range typeNames {
		numbers[name] = n
	}
	for n, name := range newerTypes {
		numbers[name] = n
	}
	var out []logRecord
	for line := range strings.SplitSeq(strings.TrimSpace(c.lines), "\n") {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		typ, ok := numbers[name]
		if !ok {
			t.Fatalf("no type is called %q", name)
		}
		text = strings.ReplaceAll(text, "WHO", strings.TrimSpace(who))
		out = append(out, logRecord{typ, []byte("audit(1700000000.123:55): " + text)})
	}
	return append(out, logRecord{typeEOE, []byte("audit(1700000000.123:55): ")})
}

var decodeCases = []decodeCase{
	{name: "header", lines: `SYSCALL arch=c000003e syscall=231 a0=103 a1=0 a2=0 a3=0 items=0 WHO`,
		want: []string{"exit exit_code=3 signal=0 duration_ns=- user_time_ns=- pid=20 tid=- ppid=10 uid=1001 gid=1002 euid=1003 egid=1006 auid=1000 session_id=7 tty=pts/3 comm=c path=/bin/c source=audit fidelity=kernel time=1700000000 ntime=1700000000123000000"}},
	{name: "exit of a thread", lines: `SYSCALL arch=c000003e syscall=60 a0=0 items=0 WHO`, counted: "- filtered no_kind"},

	{name: "exec", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=2 WHO
		EXECVE argc=3 a0="ls" a1=2D6C2061 a2=""
		CWD cwd="/tmp"
		PATH item=0 name="./ls" inode=11 dev=fd:01 mode=0104755 ouid=1 ogid=2 rdev=00:00 nametype=NORMAL
		PATH item=1 name="/lib64/ld.so" inode=12 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec args=["ls","-l\u0020a",""] args_length=9 args_truncated=0 filename=./ls cwd=/tmp interpreter= script= inode=11 mode=35309 owner_uid=1 owner_gid=2 suid=1004 sgid=1007 fsuid=1005 fsgid=1008 syscall=execve memfd=0 deleted=0`}},
	{name: "more than ten arguments, in two records", lines: `SYSCALL arch=c000003e syscall=322 success=yes exit=0 items=0 WHO
		EXECVE argc=12 a0="a" a1="b" a2="c" a3="d" a4="e" a5="f" a6="g" a7="h" a8="i"
		EXECVE a9="j" a10="k" a11="l"`,
		want: []string{`exec args=["a","b","c","d","e","f","g","h","i","j","k","l"] args_truncated=0 syscall=execveat owner_uid=- inode=-`}},
	{name: "a long argument in parts", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		EXECVE argc=3 a0="x" a1_len=12 a1[0]=6161 a1[1]="bb"
		EXECVE a1[2]=6363
		EXECVE a2="end"`,
		want: []string{`exec args=["x","aabbcc","end"] args_length=13 args_truncated=0`}},
	{name: "a part that is missing", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		EXECVE argc=2 a0="x" a1_len=12 a1[0]=6161
		EXECVE a1[2]=6363`,
		want: []string{`exec args=["x","aa","cc"] args_truncated=1`}},
	{name: "a record of arguments that is missing", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		EXECVE argc=5 a0="x" a1="y"
		EXECVE a4="z"`,
		want: []string{`exec args=["x","y","z"] args_truncated=1`}},
	{name: "the last arguments are missing", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		EXECVE argc=5 a0="x" a1="y"`,
		want: []string{`exec args=["x","y"] args_truncated=1`}},
	{name: "no arguments", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		EXECVE argc=0`, want: []string{`exec args=[] args_length=0 args_truncated=0`}},
	{name: "script", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=3 WHO
		EXECVE argc=2 a0="/bin/sh" a1="./s.sh"
		CWD cwd="/tmp"
		PATH item=0 name="./s.sh" inode=11 dev=fd:01 mode=0100700 ouid=1 ogid=2 nametype=NORMAL
		PATH item=1 name="/bin/sh" inode=12 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL
		PATH item=2 name="/lib64/ld.so" inode=13 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec script=/tmp/s.sh interpreter=/bin/c inode=12 owner_uid=0 mode=33261 filename=./s.sh`}},
	{name: "script of an interpreter that is a script", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=4 WHO
		EXECVE argc=3 a0="/bin/sh" a1="/usr/bin/i" a2="./s.sh"
		CWD cwd="/tmp"
		PATH item=0 name="./s.sh" inode=11 dev=fd:01 mode=0100700 ouid=1 ogid=2 nametype=NORMAL
		PATH item=1 name="/usr/bin/i" inode=12 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL
		PATH item=2 name="/bin/sh" inode=13 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL
		PATH item=3 name="/lib64/ld.so" inode=14 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec script=/tmp/s.sh inode=13`}},
	{name: "script of a static interpreter", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=2 WHO
		EXECVE argc=2 a0="/bin/busybox" a1="/s.sh"
		PATH item=0 name="/s.sh" inode=11 dev=fd:01 mode=0100700 ouid=1 ogid=2 nametype=NORMAL
		PATH item=1 name="/bin/busybox" inode=12 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec script=/s.sh inode=12`}},
	{name: "a binary with arguments of a script", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=2 WHO
		EXECVE argc=2 a0="/lib64/ld.so" a1="/bin/c"
		PATH item=0 name="/bin/c" inode=11 dev=fd:01 mode=0100755 ouid=1 ogid=2 nametype=NORMAL
		PATH item=1 name="/lib64/ld.so" inode=12 dev=fd:01 mode=0100755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec script= interpreter= inode=11`}},
	{name: "from memory", lines: `SYSCALL arch=c000003e syscall=322 success=yes exit=0 items=1 ppid=10 pid=20 uid=0 comm="3" exe=2F6D656D66643A78202864656C6574656429
		EXECVE argc=1 a0="x"
		CWD cwd=2F746D702F6120622F
		PATH item=0 name="/dev/fd/3" inode=11 dev=00:01 mode=0100777 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec path=/memfd:x memfd=1 deleted=1 cwd=/tmp/a\u0020b/ auid=0 session_id=0`}},
	{name: "deleted", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=1 ppid=10 pid=20 uid=0 comm="3" exe=2F746D702F78202864656C6574656429
		EXECVE argc=1 a0="x"
		PATH item=0 name="/tmp/x" inode=11 dev=00:01 mode=0100777 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`exec path=/tmp/x memfd=0 deleted=1`}},
	{name: "exec that failed", lines: `SYSCALL arch=c000003e syscall=59 success=no exit=-2 items=1 WHO`, counted: "exec filtered failed"},
	{name: "exec of 32-bit x86", lines: `SYSCALL arch=40000003 syscall=11 success=yes exit=0 items=0 WHO
		EXECVE argc=1 a0="x"`, want: []string{`exec syscall=execve`}},
	{name: "exec of x32", lines: `SYSCALL arch=c000003e syscall=1073742344 success=yes exit=0 items=0 WHO
		EXECVE argc=1 a0="x"`, want: []string{`exec syscall=execve`}},
	{name: "exec of arm64", lines: `SYSCALL arch=c00000b7 syscall=221 success=yes exit=0 items=0 WHO
		EXECVE argc=1 a0="x"`, want: []string{`exec syscall=execve`}},
	{name: "the number of execve on another architecture", lines: `SYSCALL arch=40000003 syscall=59 success=yes exit=0 items=0 WHO`, counted: "- filtered no_kind"},
	{name: "an architecture that is not known", lines: `SYSCALL arch=80000016 syscall=11 success=yes exit=0 items=0 WHO`, counted: "- filtered no_kind"},
	{name: "capabilities of a file", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		BPRM_FCAPS fver=2 fp=2000 fi=0 fe=1 old_pp=0 old_pi=0 old_pe=0 old_pa=0 pp=2000 pi=0 pe=2000 pa=0 frootid=0
		EXECVE argc=1 a0="ping"`,
		want: []string{`credential operation=exec new_permitted=2000 new_effective=2000 old_permitted=0 capabilities_gained=cap_net_raw new_euid=1003 old_uid=- result=ok`, `exec args=["ping"]`}},

	{name: "capabilities that root had", lines: `SYSCALL arch=c000003e syscall=59 success=yes exit=0 items=0 WHO
		BPRM_FCAPS fver=0 fp=0 fi=0 fe=0 old_pp=000001fffeffffff old_pi=0 old_pe=000001fffeffffff old_pa=0 pp=000001fffeffffff pi=0 pe=000001fffeffffff pa=0 frootid=0
		EXECVE argc=1 a0="ls"`, want: []string{`exec args=["ls"]`}},

	{name: "fork", lines: `SYSCALL arch=c000003e syscall=57 success=yes exit=77 items=0 WHO`, want: []string{`fork child_pid=77 child_ppid=20 pid=20`}},
	{name: "vfork", lines: `SYSCALL arch=c000003e syscall=58 success=yes exit=77 items=0 WHO`, want: []string{`fork child_pid=77`}},
	{name: "clone", lines: `SYSCALL arch=c000003e syscall=56 success=yes exit=77 a0=1200011 items=0 WHO`, want: []string{`fork child_pid=77 child_ppid=20`}},
	{name: "clone with CLONE_PARENT", lines: `SYSCALL arch=c000003e syscall=56 success=yes exit=77 a0=8011 items=0 WHO`, want: []string{`fork child_pid=77 child_ppid=10`}},
	{name: "clone of a thread", lines: `SYSCALL arch=c000003e syscall=56 success=yes exit=77 a0=3d0f00 items=0 WHO`, counted: "fork filtered thread"},
	{name: "clone that failed", lines: `SYSCALL arch=c000003e syscall=56 success=no exit=-11 a0=1200011 items=0 WHO`, counted: "fork filtered failed"},
	{name: "clone3 of a process", opt: decoderOptions{Thread: func(uint32) threadAnswer { return threadLeads }},
		lines: `SYSCALL arch=c000003e syscall=435 success=yes exit=77 a0=7ffd a1=58 items=0 WHO`, want: []string{`fork child_pid=77 child_ppid=20`}},
	{name: "clone3 of a thread", opt: decoderOptions{Thread: func(uint32) threadAnswer { return threadIs }},
		lines: `SYSCALL arch=c000003e syscall=435 success=yes exit=77 a0=7ffd a1=58 items=0 WHO`, counted: "fork filtered thread"},
	{name: "clone3 of nobody knows what", lines: `SYSCALL arch=c000003e syscall=435 success=yes exit=77 a0=7ffd a1=58 items=0 WHO`, counted: "fork filtered perhaps_thread"},

	{name: "connect", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 a1=7ff a2=10 items=0 WHO
		SOCKADDR saddr=020001BB01020304000000000000000`, counted: "connect lost incomplete"},
	{name: "connect inet", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 a1=7ff a2=10 items=0 WHO
		SOCKADDR saddr=020001BB010203040000000000000000`,
		want: []string{`connect family=inet protocol= remote_address=1.2.3.4 remote_port=443 local_address= local_port=- result=ok socket_path=`}},
	{name: "connect inet6", lines: `SYSCALL arch=c000003e syscall=42 success=no exit=-111 a0=5 items=0 WHO
		SOCKADDR saddr=0A0000500000000020010DB800000000000000000000000100000000`,
		want: []string{`connect family=inet6 remote_address=2001:db8::1 remote_port=80 result=ECONNREFUSED`}},
	{name: "connect to an IPv4 address through IPv6", lines: `SYSCALL arch=c000003e syscall=42 success=no exit=-115 a0=5 items=0 WHO
		SOCKADDR saddr=0A0000500000000000000000000000000000FFFF0102030400000000`,
		want: []string{`connect family=inet remote_address=1.2.3.4 remote_port=80 result=in_progress`}},
	{name: "connect unix", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=01002F72756E2F78000041`,
		want: []string{`connect family=unix socket_path=/run/x`}},
	{name: "connect abstract", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=01000061006263`,
		want: []string{`connect family=unix socket_path=@a\u0000bc`}},
	{name: "bind of a unix socket without a name", lines: `SYSCALL arch=c000003e syscall=49 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=0100`, want: []string{`bind family=unix socket_path= result=ok`}},
	{name: "bind netlink", lines: `SYSCALL arch=c000003e syscall=49 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=100000000000000000000000`, counted: "bind filtered family"},
	{name: "connect to nothing", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=00000000000000000000000000000000`, counted: "connect filtered family"},
	{name: "connect whose address is missing", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 items=0 WHO`, counted: "connect lost incomplete"},
	{name: "connect with a bad address", lines: `SYSCALL arch=c000003e syscall=42 success=no exit=-14 a0=5 items=0 WHO`, want: []string{`connect family= result=EFAULT`}},
	{name: "an address that is cut", lines: `SYSCALL arch=c000003e syscall=42 success=yes exit=0 a0=5 items=0 WHO
		SOCKADDR saddr=020001BB0102`, want: []string{`connect family=inet remote_address= remote_port=443`}},
	{name: "accept", lines: `SYSCALL arch=c000003e syscall=288 success=yes exit=4 a0=3 items=0 WHO
		SOCKADDR saddr=0200C0010A0000010000000000000000`, want: []string{`accept remote_address=10.0.0.1 remote_port=49153 local_address= result=ok`}},
	{name: "accept without an address", lines: `SYSCALL arch=c000003e syscall=43 success=yes exit=4 a0=3 items=0 WHO`, want: []string{`accept family= remote_address= result=ok`}},
	{name: "bind", lines: `SYSCALL arch=c000003e syscall=49 success=yes exit=0 a0=3 items=0 WHO
		SOCKADDR saddr=02001F90000000000000000000000000`, want: []string{`bind local_address=0.0.0.0 local_port=8080 remote_address= result=ok`}},
	{name: "listen", lines: `SYSCALL arch=c000003e syscall=50 success=no exit=-98 a0=3 a1=80 items=0 WHO`, want: []string{`listen family= result=EADDRINUSE`}},
	{name: "connect by io_uring", lines: `URINGOP uring_op=16 success=yes exit=0 items=0 ppid=10 pid=20 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 key=(null)
		SOCKADDR saddr=020001BB010203040000000000000000`, want: []string{`connect remote_address=1.2.3.4 result=ok pid=20`}},

	{name: "setuid", lines: `SYSCALL arch=c000003e syscall=105 success=yes exit=0 a0=3e8 items=0 WHO`,
		want: []string{`credential operation=setuid argument=1000 result=ok new_uid=1001 new_euid=1003 new_suid=1004 new_fsuid=1005 new_gid=1002 old_uid=- old_permitted=`}},
	{name: "setresgid", lines: `SYSCALL arch=c000003e syscall=119 success=no exit=-1 a0=ffffffffffffffff a1=0 a2=ffffffff items=0 WHO`,
		want: []string{`credential operation=setresgid argument=-1,0,-1 result=EPERM`}},
	{name: "setresuid of 16 bits", lines: `SYSCALL arch=40000003 syscall=164 success=yes exit=0 a0=ffff a1=0 a2=ffff items=0 WHO`,
		want: []string{`credential operation=setresuid argument=-1,0,-1`}},
	{name: "setresuid32", lines: `SYSCALL arch=40000003 syscall=208 success=yes exit=0 a0=ffff a1=0 a2=ffffffff items=0 WHO`,
		want: []string{`credential operation=setresuid argument=65535,0,-1`}},
	{name: "setfsuid", lines: `SYSCALL arch=c000003e syscall=122 success=yes exit=33 a0=0 items=0 WHO`,
		want: []string{`credential operation=setfsuid argument=0 result=ok old_fsuid=33`}},
	{name: "capset", lines: `SYSCALL arch=c000003e syscall=126 success=yes exit=0 a0=7f a1=7e items=0 WHO
		CAPSET pid=20 cap_pi=0000000000000000 cap_pp=0000000000000400 cap_pe=0000000000000400 cap_pa=0`,
		want: []string{`credential operation=capset argument= new_permitted=0000000000000400 new_effective=0000000000000400 new_inheritable=0000000000000000 new_ambient=0`}},

	{name: "ptrace", lines: `SYSCALL arch=c000003e syscall=101 success=yes exit=0 a0=10 a1=4d2 a2=0 a3=0 items=0 WHO
		OBJ_PID opid=1234 oauid=5 ouid=6 oses=1 ocomm="victim"`,
		want: []string{`ptrace request=attach result=ok target_pid=1234 target_uid=6 target_comm=victim`}},
	{name: "ptrace that fails", lines: `SYSCALL arch=c000003e syscall=101 success=no exit=-3 a0=4206 a1=4d2 a2=0 a3=0 items=0 WHO`,
		want: []string{`ptrace request=seize result=ESRCH target_pid=1234 target_uid=-`}},
	{name: "traceme", lines: `SYSCALL arch=c000003e syscall=101 success=yes exit=0 a0=0 a1=0 a2=0 a3=0 items=0 WHO`,
		want: []string{`ptrace request=traceme target_pid=10`}},
	{name: "process_vm_writev", lines: `SYSCALL arch=c000003e syscall=311 success=yes exit=8 a0=4d2 a1=0 a2=0 a3=0 items=0 WHO`,
		want: []string{`ptrace request=process_vm_writev target_pid=1234 result=ok`}},

	{name: "kill", lines: `SYSCALL arch=c000003e syscall=62 success=yes exit=0 a0=4d2 a1=9 items=0 WHO
		OBJ_PID opid=1234 oauid=1000 ouid=6 oses=1 ocomm=6120622F`,
		want: []string{`signal signal=9 signal_name=SIGKILL target_pid=1234 target_uid=6 target_auid=1000 target_comm=a\u0020b/ requested_pid=1234 syscall=kill result=ok`}},
	{name: "kill of a group", lines: `SYSCALL arch=c000003e syscall=62 success=yes exit=0 a0=fffffffffffffb2e a1=f items=0 WHO
		OBJ_PID opid=1234 oauid=-1 ouid=6 oses=-1 ocomm="x"
		OBJ_PID opid=1235 oauid=-1 ouid=6 oses=-1 ocomm="y"`,
		want: []string{`signal target_pid=1234 requested_pid=-1234 target_auid=-`, `signal target_pid=1235 requested_pid=-1234 signal_name=SIGTERM`}},
	{name: "kill of nobody", lines: `SYSCALL arch=c000003e syscall=62 success=no exit=-3 a0=4d2 a1=0 items=0 WHO`,
		want: []string{`signal signal=0 signal_name= target_pid=1234 result=ESRCH target_uid=-`}},
	{name: "tgkill", lines: `SYSCALL arch=c000003e syscall=234 success=yes exit=0 a0=4d2 a1=4d3 a2=6 items=0 WHO`,
		want: []string{`signal signal_name=SIGABRT target_pid=1234 syscall=tgkill`}},
	{name: "pidfd_send_signal", lines: `SYSCALL arch=c000003e syscall=424 success=yes exit=0 a0=3 a1=9 items=0 WHO
		OBJ_PID opid=1234 oauid=0 ouid=6 oses=1 ocomm="x"`,
		want: []string{`signal signal=9 target_pid=1234 requested_pid=0`}},

	{name: "finit_module", lines: `SYSCALL arch=c000003e syscall=313 success=yes exit=0 a0=3 a1=55 a2=1 items=0 WHO
		KERN_MODULE name="dummy"`, want: []string{`module operation=load name=dummy flags=MODULE_INIT_IGNORE_MODVERSIONS result=ok syscall=finit_module`}},
	{name: "delete_module", lines: `SYSCALL arch=c000003e syscall=176 success=no exit=-11 a0=55 a1=a00 items=0 WHO
		KERN_MODULE name="dummy"`, want: []string{`module operation=unload name=dummy flags=O_NONBLOCK|O_TRUNC result=EAGAIN`}},

	{name: "mount", lines: `SYSCALL arch=c000003e syscall=165 success=yes exit=0 a0=1 a1=2 a2=3 a3=6 items=1 WHO
		CWD cwd="/"
		PATH item=0 name="mnt" inode=5 dev=fd:01 mode=040755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`mount operation=mount mount_target=/mnt mount_source= flags=MS_NOSUID|MS_NODEV result=ok syscall=mount`}},
	{name: "bind mount", lines: `SYSCALL arch=c000003e syscall=165 success=yes exit=0 a0=1 a1=2 a2=3 a3=c0ed5000 items=2 WHO
		PATH item=0 name="/mnt" inode=5 dev=fd:01 mode=040755 ouid=0 ogid=0 nametype=NORMAL
		PATH item=1 name="/src" inode=6 dev=fd:01 mode=040755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`mount operation=bind mount_target=/mnt mount_source=/src flags=MS_BIND|MS_REC`}},
	{name: "umount", lines: `SYSCALL arch=c000003e syscall=166 success=no exit=-16 a0=1 a1=2 items=1 WHO
		PATH item=0 name="/mnt" inode=5 dev=00:2a mode=040755 ouid=0 ogid=0 nametype=NORMAL`,
		want: []string{`mount operation=umount mount_target=/mnt flags=MNT_DETACH result=EBUSY`}},

	{name: "create", lines: `SYSCALL arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=55 a2=241 a3=1b6 items=2 ppid=10 pid=20 uid=0 comm="c" exe="/bin/c" key="passwd"
		CWD cwd="/tmp"
		PATH item=0 name="/tmp" inode=2 dev=fd:01 mode=041777 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="new" inode=7 dev=fd:01 mode=0100644 ouid=4 ogid=5 rdev=00:00 nametype=CREATE`,
		want: []string{`file operation=create target_path=/tmp/new destination_path= argument=O_WRONLY|O_CREAT|O_TRUNC category=passwd device=253:1 inode=7 mode=33188 owner_uid=4 owner_gid=5 result=ok syscall=openat cwd=/tmp size=- sha256=`}},
	{name: "open", lines: `SYSCALL arch=c000003e syscall=2 success=yes exit=3 a0=55 a1=402 items=1 WHO
		CWD cwd="/etc"
		PATH item=0 name="./passwd" inode=7 dev=fd:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=open target_path=/etc/passwd argument=O_RDWR|O_APPEND category= suid=1004 fsgid=1008`}},
	{name: "open of arm64", lines: `SYSCALL arch=c00000b7 syscall=56 success=no exit=-13 a0=ffffffffffffff9c a1=55 a2=84000 items=1 WHO
		CWD cwd="/"
		PATH item=0 name="/etc" inode=7 dev=fd:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=open target_path=/etc argument=O_RDONLY|O_CLOEXEC|O_DIRECTORY result=EACCES`}},
	{name: "openat2", lines: `SYSCALL arch=c000003e syscall=437 success=yes exit=3 a0=ffffff9c a1=55 a2=56 a3=18 items=1 WHO
		OPENAT2 oflag=0100002 mode=00 resolve=0x8
		CWD cwd="/"
		PATH item=0 name="/x" inode=7 dev=fd:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=open argument=O_RDWR syscall=openat2`}},
	{name: "delete below a descriptor", lines: `SYSCALL arch=c000003e syscall=263 success=yes exit=0 a0=4 a1=55 a2=0 items=2 WHO
		CWD cwd="/home"
		PATH item=0 name="/home" inode=2 dev=fd:01 mode=041777 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="old" inode=7 dev=fd:01 mode=0100644 ouid=4 ogid=5 rdev=00:00 nametype=DELETE`,
		want: []string{`file operation=delete target_path=.../old fidelity=kernel`}},
	{name: "delete below a descriptor that is known", opt: decoderOptions{FDPath: fdPath},
		lines: `SYSCALL arch=c000003e syscall=263 success=yes exit=0 a0=4 a1=55 a2=0 items=2 WHO
		CWD cwd="/home"
		PATH item=0 name="/home" inode=2 dev=fd:01 mode=041777 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="old" inode=7 dev=fd:01 mode=0100644 ouid=4 ogid=5 rdev=00:00 nametype=DELETE`,
		want: []string{`file operation=delete target_path=/20/4/253:1/2/old fidelity=state`}},
	{name: "delete further below a descriptor", opt: decoderOptions{FDPath: fdPath},
		lines: `SYSCALL arch=c000003e syscall=263 success=yes exit=0 a0=4 a1=55 a2=0 items=2 WHO
		CWD cwd="/home"
		PATH item=0 name="a/" inode=2 dev=fd:01 mode=041777 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="a/old" inode=7 dev=fd:01 mode=0100644 ouid=4 ogid=5 rdev=00:00 nametype=DELETE`,
		want: []string{`file operation=delete target_path=.../a/old fidelity=kernel`}},
	{name: "rename over a file", lines: `SYSCALL arch=c000003e syscall=82 success=yes exit=0 items=5 WHO
		CWD cwd="/"
		PATH item=0 name="/etc/" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="/etc/" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=2 name="/etc/group+" inode=191561 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=DELETE
		PATH item=3 name="/etc/group" inode=191618 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=DELETE
		PATH item=4 name="/etc/group" inode=191561 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=CREATE`,
		want: []string{`file operation=rename target_path=/etc/group+ destination_path=/etc/group inode=191561`}},
	{name: "rename of Linux 2.6", lines: `SYSCALL arch=c000003e syscall=82 success=yes exit=0 items=4 WHO
		CWD cwd="/"
		PATH item=0 name="/a/" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00
		PATH item=1 name="/b/" inode=2 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00
		PATH item=2 name="/a/x" inode=3 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00
		PATH item=3 name="/b/y" inode=3 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00`,
		want: []string{`file operation=rename target_path=/a/x destination_path=/b/y`}},
	{name: "a name that is missing", lines: `SYSCALL arch=c000003e syscall=82 success=yes exit=0 items=4 WHO
		CWD cwd="/"
		PATH item=0 name="/a/" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=2 name="/a/x" inode=3 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=DELETE
		PATH item=3 name="/b/y" inode=3 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=CREATE`, counted: "file lost incomplete"},
	{name: "link", lines: `SYSCALL arch=c000003e syscall=86 success=yes exit=0 items=3 WHO
		CWD cwd="/"
		PATH item=0 name="/etc/shadow" inode=3 dev=08:01 mode=0100640 ouid=0 ogid=42 rdev=00:00 nametype=NORMAL
		PATH item=1 name="/tmp/" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=2 name="/tmp/l" inode=3 dev=08:01 mode=0100640 ouid=0 ogid=42 rdev=00:00 nametype=CREATE`,
		want: []string{`file operation=link target_path=/etc/shadow destination_path=/tmp/l owner_gid=42`}},
	{name: "symlink", lines: `SYSCALL arch=c000003e syscall=266 success=yes exit=0 a0=55 a1=ffffff9c a2=56 items=3 WHO
		CWD cwd="/w"
		PATH item=0 name="../etc/shadow" nametype=UNKNOWN
		PATH item=1 name="/w" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=2 name="l" inode=9 dev=08:01 mode=0120777 ouid=0 ogid=0 rdev=00:00 nametype=CREATE`,
		want: []string{`file operation=symlink target_path=../etc/shadow destination_path=/w/l`}},
	{name: "chmod", lines: `SYSCALL arch=c000003e syscall=90 success=yes exit=0 a0=55 a1=9ed items=1 WHO
		CWD cwd="/"
		PATH item=0 name="/x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=chmod target_path=/x argument=04755 mode=33188`}},
	{name: "fchmod", opt: decoderOptions{FDPath: fdPath}, lines: `SYSCALL arch=c000003e syscall=91 success=yes exit=0 a0=5 a1=0 items=1 WHO
		PATH item=0 name=(null) inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=chmod target_path=/20/5/8:1/9 argument=00 fidelity=state`}},
	{name: "fchmod of a file that is not known", lines: `SYSCALL arch=c000003e syscall=91 success=yes exit=0 a0=5 a1=0 items=1 WHO
		PATH item=0 name=(null) inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=chmod target_path= inode=9 device=8:1`}},
	{name: "chown", lines: `SYSCALL arch=c000003e syscall=260 success=no exit=-1 a0=ffffff9c a1=55 a2=3e8 a3=ffffffff items=1 WHO
		PATH item=0 name="/x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=chown argument=1000:-1 result=EPERM`}},
	{name: "chown of 16 bits", lines: `SYSCALL arch=40000003 syscall=182 success=yes exit=0 a0=55 a1=ffff a2=7 items=1 WHO
		PATH item=0 name="/x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=chown argument=-1:7`}},
	{name: "truncate64 of 32-bit x86", lines: `SYSCALL arch=40000003 syscall=193 success=yes exit=0 a0=55 a1=5 a2=1 a3=0 items=1 WHO
		PATH item=0 name="/x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=truncate argument=4294967301`}},
	{name: "truncate", lines: `SYSCALL arch=c000003e syscall=76 success=yes exit=0 a0=55 a1=0 items=1 WHO
		PATH item=0 name="/x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=truncate argument=0 size=-`}},
	{name: "setxattr", lines: `SYSCALL arch=c000003e syscall=188 success=yes exit=0 a0=55 items=1 WHO
		PATH item=0 name=2F6120620A inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL`,
		want: []string{`file operation=setxattr target_path=/a\u0020b\n argument=`}},
	{name: "unlink by io_uring", lines: `URINGOP uring_op=36 success=yes exit=0 items=2 ppid=10 pid=20 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 key="goshawk"
		CWD cwd="/w"
		PATH item=0 name="/w" inode=1 dev=08:01 mode=040755 ouid=0 ogid=0 rdev=00:00 nametype=PARENT
		PATH item=1 name="x" inode=9 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 nametype=DELETE`,
		want: []string{`file operation=delete target_path=.../x syscall=io_uring:unlinkat category=`}},

	{name: "useradd", lines: `ADD_USER pid=5 uid=0 auid=1000 ses=3 subj=unconfined msg='op=adding user id=1001 exe="/usr/sbin/useradd" hostname=? addr=? terminal=pts/0 res=success'`,
		want: []string{`user type=ADD_USER operation=adding\u0020user account_uid=1001 account= terminal=pts/0 address= hostname= result=success path=/usr/sbin/useradd pid=5 uid=0 auid=1000 session_id=3 fidelity=user gid=- euid=-`}},
	{name: "groupadd", lines: `ADD_GROUP pid=5 uid=0 auid=1000 ses=3 msg='op=add-group grp="wheel" acct="wheel" exe="/usr/sbin/groupadd" hostname=h addr=::1 terminal=? res=1'`,
		want: []string{`user type=ADD_GROUP operation=add-group object=wheel account=wheel hostname=h address=::1 terminal= result=success`}},
	{name: "a claim that a program cannot make", lines: `USER_AUTH pid=5 uid=33 auid=1000 ses=3 msg='op=x pid=1 uid=0 auid=0 ses=1 acct="root" exe="/bin/su" res=failed'`,
		want: []string{`user pid=5 uid=33 auid=1000 session_id=3 account=root result=failed`}},
	{name: "sudo", lines: `USER_CMD pid=5 uid=1000 auid=1000 ses=3 msg='cwd="/root" cmd=6361742022612062 exe="/usr/bin/sudo" terminal=pts/1 res=success'`,
		want: []string{`user type=USER_CMD operation=command command=cat\u0020"a\u0020b terminal=pts/1 path=/usr/bin/sudo`}},
	{name: "anomaly", lines: `ANOM_PROMISCUOUS dev=veth0 prom=256 old_prom=0 auid=1000 uid=0 gid=0 ses=3`,
		want: []string{`user type=ANOM_PROMISCUOUS object=veth0 auid=1000 uid=0 gid=0 session_id=3 fidelity=kernel pid=0`}},
	{name: "integrity", lines: `INTEGRITY_DATA pid=5 uid=0 auid=0 ses=1 op=appraise_data cause=invalid-hash comm="x" name="/usr/bin/y" dev="sda1" ino=5 res=0`,
		want: []string{`user type=INTEGRITY_DATA operation=appraise_data object=/usr/bin/y comm=x result=failed pid=5`}},
	{name: "crash", lines: `ANOM_ABEND auid=1000 uid=1001 gid=1002 ses=3 pid=5 comm="x" exe="/bin/x" sig=11 res=1`,
		want: []string{`user type=ANOM_ABEND operation=abend path=/bin/x`, `exit signal=11 exit_code=0 pid=5 uid=1001 path=/bin/x duration_ns=-`}},
	{name: "response", lines: `RESP_KILL_PROC pid=5 uid=0 auid=0 ses=1 msg='op=kill res=success'`, want: []string{`user type=RESP_KILL_PROC operation=kill`}},

	{name: "selinux", lines: `AVC avc:  denied  { read open } for  pid=20 comm="httpd" name="shadow" dev="sda1" ino=5 scontext=a:b:httpd_t:s0 tcontext=a:b:shadow_t:s0 tclass=file permissive=1
		SYSCALL arch=c000003e syscall=39 success=yes exit=1 items=0 WHO`,
		want: []string{`policy type=AVC module=selinux operation=read\u0020open result=permissive subject=a:b:httpd_t:s0 object=a:b:shadow_t:s0 object_class=file target_path=shadow pid=20 uid=1001 path=/bin/c`}},
	{name: "selinux with a path of its own", lines: `AVC avc:  granted  { read } for  pid=20 comm="x" name="y" scontext=a tcontext=b tclass=file
		AVC_PATH path="/tmp/y"`, want: []string{`policy result=granted target_path=/tmp/y uid=-`}},
	{name: "apparmor", lines: `AVC apparmor="DENIED" operation="open" class="file" profile="/usr/sbin/x" name="/etc/a b" pid=20 comm="x" requested_mask="r" denied_mask="r" fsuid=0 ouid=0`,
		want: []string{`policy module=apparmor operation=open result=denied subject=/usr/sbin/x target_path=/etc/a\u0020b object_class=file comm=x pid=20`}},
	{name: "seccomp", lines: `SECCOMP auid=1000 uid=1001 gid=1002 ses=3 subj=unconfined pid=20 comm="x" exe="/bin/x" sig=31 arch=40000003 syscall=11 compat=1 ip=0x7f code=0x80000000`,
		want: []string{`policy type=SECCOMP module=seccomp operation=execve result=kill_process uid=1001 path=/bin/x session_id=3`}},
	{name: "seccomp of an unknown architecture", lines: `SECCOMP auid=1000 uid=1001 gid=1002 ses=3 pid=20 comm="x" exe="/bin/x" sig=0 arch=5 syscall=11 compat=0 ip=0x7f code=0x50001`,
		want: []string{`policy operation=11 result=errno`}},
	{name: "enforcing", lines: `MAC_STATUS enforcing=0 old_enforcing=1 auid=0 ses=1 enabled=1 old-enabled=1 lsm=selinux res=1`,
		want: []string{`policy type=MAC_STATUS module=selinux result=success auid=0`}},
	{name: "landlock", lines: `LANDLOCK_ACCESS domain=1a blockers=fs.read_file path="/etc/x" dev="sda1" ino=5
		SYSCALL arch=c000003e syscall=257 success=no exit=-13 a0=ffffff9c items=0 WHO`,
		want: []string{`policy module=landlock operation=fs.read_file result=denied target_path=/etc/x pid=20`, `file operation=open result=EACCES target_path=`}},
	{name: "a daemon's decision", lines: `USER_AVC pid=1 uid=0 auid=4294967295 ses=4294967295 subj=s msg='avc:  denied  { start } for auid=0 uid=7 path="/x" scontext=a tcontext=b tclass=service exe="/usr/lib/systemd/systemd" sauid=0 res=failed'`,
		want: []string{`policy type=USER_AVC fidelity=user operation=start result=failed subject=a object=b target_path=/x pid=1`}},
}

// fdPath spells out what it was asked.
func fdPath(pid uint32, fd int32, device string, inode uint64) string {
	return fmt.Sprintf("/%d/%d/%s/%d", pid, fd, device, inode)
}

func TestDecode(t *testing.T) {
	for _, c := range decodeCases {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(t, c.opt)
			for _, r := range c.records(t) {
				f.push(r.typ, string(r.text))
			}
			f.wait(maxWait)
			f.wait(time.Minute)
			if len(f.made) != len(c.want) {
				t.Errorf("%d events, want %d; counts %v", len(f.made), len(c.want), f.counts())
			}
			for i, want := range c.want {
				if i < len(f.made) {
					checkColumns(t, f.made[i], want)
				}
			}
			if c.counted != "" && f.counts()[c.counted] != 1 {
				t.Errorf("counts %v, want %s", f.counts(), c.counted)
			}
			balance(t, f)
		})
	}
}

// checkColumns compares an event with "kind column=value column=value"; values are written
// without spaces.
func checkColumns(t *testing.T, e event.Event, want string) {
	t.Helper()
	for _, err := range columnErrors(t, e, want) {
		t.Error(err)
	}
}

// columnErrors says what is different.
func columnErrors(t *testing.T, e event.Event, want string) (errs []string) {
	t.Helper()
	words := strings.Fields(want)
	k := event.ByID(e.Head().Kind)
	if k.Name != words[0] {
		return []string{fmt.Sprintf("an event of kind %s, want %s", k.Name, words[0])}
	}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		c := k.Column(name)
		if c == nil {
			t.Fatalf("%s has no column %s", k.Name, name)
		}
		v := c.Value(e)
		got := v.Text()
		switch {
		case v.IsNull():
			got = "-"
		case v.Kind() == schema.KindText && c.Form == schema.Plain:
			if q := strconv.Quote(got); strings.ContainsAny(got, " \x00\n") {
				got = strings.NewReplacer(" ", `\u0020`, `\x00`, `\u0000`, `\"`, `"`).Replace(q[1 : len(q)-1])
			}
		case c.Form == schema.List:
			got = strings.ReplaceAll(got, " ", `\u0020`)
		}
		if got != value {
			errs = append(errs, fmt.Sprintf("%s is %s, want %s", name, got, value))
		}
	}
	return errs
}
