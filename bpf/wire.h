/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The contract between the BPF programs and internal/sensor.
 *
 * A record is one rec_* structure followed by variable data, which spans name by offset
 * from the start of the record. No structure is packed; fields go widest first, pads are
 * named, sizes are multiples of 8, and padding by the compiler is an error. Numbers of
 * kinds are written to the store and are never used again for something else.
 *
 * bpf2go makes the Go twins; a test compares every offset with the BTF of the objects.
 */
#ifndef GOSHAWK_WIRE_H
#define GOSHAWK_WIRE_H

#pragma clang diagnostic push
#pragma clang diagnostic error "-Wpadded"

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
	KIND_CONNECT = 4,
	KIND_ACCEPT = 5,
	KIND_BIND = 6,
	KIND_LISTEN = 7,
	KIND_CLOSE = 8,
	KIND_DNS = 9,
	KIND_FILE = 11,
	KIND_CREDENTIAL = 12,
	KIND_PTRACE = 13,
	KIND_SIGNAL = 14,
	KIND_MODULE = 15,
	KIND_BPF = 16,
	KIND_MOUNT = 17,
	KIND_NAMESPACE = 18,
	KIND_MEMORY = 19,
	KIND_CONTAINER = 21,
	KIND_SYSCALL = 25,
	KIND_MAX = 32, /* size of the counter table, not a kind */
};

/* Bits of rec_head.flags. */
enum flag {
	FLAG_ARGS_CUT = 1 << 0,	    /* fewer argument bytes than args_length */
	FLAG_PATH_CUT = 1 << 1,	    /* the first names of path were cut */
	FLAG_MEMFD = 1 << 2,	    /* executed from memfd_create(2) */
	FLAG_SCRIPT = 1 << 3,	    /* the file is the interpreter of filename */
	FLAG_USER_ADDRESS = 1 << 4, /* the address was read from user memory */
	FLAG_RESPONSE = 1 << 5,	    /* dns: a server's answer */
	FLAG_ENV_CUT = 1 << 6,
	FLAG_CORE = 1 << 7,	    /* exit: a core was dumped */
	FLAG_ANONYMOUS = 1 << 8,    /* no process is known: head holds time and kind only */
	FLAG_CWD_CUT = 1 << 9,	    /* the first names of cwd were cut */
	FLAG_FILENAME_CUT = 1 << 10,
	FLAG_UPPER = 1 << 11,	    /* exec: the content is in the upper layer of an overlay */
	FLAG_OTHER_MOUNT = 1 << 12, /* exec: the file is not on the mount of the root directory */
	FLAG_ENTERED = 1 << 13,	    /* exec: the parent is in an outer pid namespace */
	FLAG_SCRIPT_UNKNOWN = 1 << 14, /* FLAG_SCRIPT could not be found out */
	FLAG_USER_TEXT = 1 << 20,   /* names were read from user memory */
	FLAG_COMMITTED = 1 << 21,   /* credential: seen where the kernel puts it in force */
	FLAG_OTHER_CUT = 1 << 22,   /* file: as FLAG_PATH_CUT, of its other path */
	FLAG_EXCHANGE = 1 << 23,    /* file: two names were exchanged */
	FLAG_PIVOT = 1 << 24,	    /* file: all below a directory is told until somebody says no */
};

/* What was done with a cgroup. */
enum cgroup_op {
	CGROUP_MKDIR = 1,
	CGROUP_RMDIR = 2,
	CGROUP_RENAME = 3,
};

/* What was done: the system calls of act.bpf.h, and what tracepoints tell. */
enum act_call {
	ACT_PTRACE = 1,
	ACT_PROCESS_VM_READV = 2,
	ACT_PROCESS_VM_WRITEV = 3,
	ACT_MODULE_LOAD = 4,
	ACT_MODULE_FREE = 5,
	ACT_BPF = 6,
	ACT_MOUNT = 7,
	ACT_UMOUNT = 8,
	ACT_MOVE_MOUNT = 9,
	ACT_PIVOT_ROOT = 10,
	ACT_MOUNT_SETATTR = 11,
	ACT_SETNS = 12,
	ACT_UNSHARE = 13,
	ACT_CHROOT = 14,
	ACT_CLONE = 15,
	ACT_MEMFD_CREATE = 16,
	ACT_MPROTECT = 17,
	ACT_MMAP = 18,
	ACT_MEM_WRITE = 19, /* args: process, address, length */
	ACT_SETUID = 32, /* from here on they change credentials */
	ACT_SETGID = 33,
	ACT_SETREUID = 34,
	ACT_SETREGID = 35,
	ACT_SETRESUID = 36,
	ACT_SETRESGID = 37,
	ACT_SETFSUID = 38,
	ACT_SETFSGID = 39,
	ACT_SETGROUPS = 40,
	ACT_CAPSET = 41,
	ACT_SOCKET = 64, /* the rest few programs have reason for */
	ACT_IO_URING_SETUP = 65,
	ACT_KEXEC_LOAD = 66,
	ACT_KEXEC_FILE_LOAD = 67,
	ACT_SETTIMEOFDAY = 68,
	ACT_CLOCK_SETTIME = 69,
	ACT_CLOCK_ADJTIME = 70,
	ACT_ADJTIMEX = 71,
	ACT_KEYCTL = 72,
	ACT_ADD_KEY = 73,
	ACT_REQUEST_KEY = 74,
};

/* What was done to a file (file.bpf.h). */
enum file_op {
	FILE_CREATE = 1,
	FILE_OPEN = 2,
	FILE_TOUCH = 3, /* written to, and still open; at most once a second */
	FILE_WRITE = 4, /* closed after that */
	FILE_DELETE = 5,
	FILE_RENAME = 6,
	FILE_LINK = 7,
	FILE_SYMLINK = 8,
	FILE_ATTRIBUTES = 9,
	FILE_SETXATTR = 10,
	FILE_REMOVEXATTR = 11,
	FILE_MKDIR = 12,
	FILE_MMAP = 13, /* shared memory that can be written to; the first time for an open file */
};

typedef __u64 wire_boottime; /* ns since boot, CLOCK_BOOTTIME */
typedef __s32 wire_errno;    /* 0, or a negative errno */
typedef __u32 wire_uid;
typedef __u32 wire_gid;

struct span {
	__u32 off; /* from the start of the record */
	__u32 len; /* bytes */
};

struct rec_head {
	wire_boottime time;
	wire_boottime start;  /* of the process */
	wire_boottime pstart; /* of its parent */
	__u64 cgroup;	      /* id of the cgroup v2 */
	__u64 cgroup1;	      /* id of the cgroup in the v1 hierarchy chosen, 0 for none */
	__u32 size;	      /* of the whole record in bytes */
	__u32 flags;
	__u32 pid; /* thread group, initial pid namespace */
	__u32 tid;
	__u32 ppid;
	wire_uid uid;
	wire_gid gid;
	wire_uid euid;
	wire_gid egid;
	wire_uid auid;
	__u32 session;
	__u16 kind;
	__u16 tty_major;
	__u32 tty_minor;
	__u32 ns_pid; /* pid in its own pid namespace, 0 in the initial one */
	__u32 pid_ns; /* inode of that namespace, 0 for the initial one */
	__u32 number; /* legacy: of this kind, sent by this CPU; from 1, modulo 2^32 */
	char comm[16];
};

struct rec_exec {
	struct rec_head head;
	__u64 inode;
	__u64 args_length; /* of all arguments with their NULs */
	struct span path;  /* names from the file up to the root, each with its NUL; off 0: none */
	struct span cwd;   /* the same */
	struct span filename;
	struct span args;
	struct span env;
	wire_uid suid;
	wire_gid sgid;
	wire_uid fsuid;
	wire_gid fsgid;
	wire_uid owner_uid;
	wire_gid owner_gid;
	__u32 mode;
	__u32 nlink;
	__u32 argc;
	__u32 dev;
};

struct rec_fork {
	struct rec_head head; /* of the caller */
	wire_boottime child_start;
	__u32 child_pid;
	__u32 child_ppid;
};

struct rec_exit {
	struct rec_head head;
	__u64 utime; /* ns, by ticks */
	__u64 stime;
	__u64 runtime; /* ns, exact: utime and stime are scaled to it */
	__u64 max_rss; /* pages */
	__u32 code;    /* as wait(2) gives it */
	__u32 pad;
};

struct rec_socket {
	struct rec_head head;
	__u64 cookie;
	__u64 sent;
	__u64 received;
	__u64 duration; /* ns */
	__u8 local[16]; /* an IPv4 address is in the first four bytes */
	__u8 remote[16];
	struct span path; /* unix: sun_path as the kernel keeps it */
	__u32 netns;
	__s32 fd;
	wire_errno result;
	__u16 family;
	__u16 type;
	__u16 protocol;
	__u16 local_port; /* host byte order */
	__u16 remote_port;
	__u16 pad;
};

struct rec_dns {
	struct rec_head head; /* FLAG_ANONYMOUS on answers: the question's cookie tells */
	__u64 cookie;
	__u8 local[16];
	__u8 remote[16];
	struct span payload;
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u16 pad;
};

struct rec_cgroup {
	struct rec_head head; /* of who did it */
	__u64 id;
	struct span path; /* from the root of its hierarchy; len 0: not known */
	__u32 hierarchy;  /* 0 for v2 */
	__u16 op;	  /* enum cgroup_op */
	__u16 pad;
};

struct rec_act {
	struct rec_head head;
	__u64 args[5];
	__u64 object;	    /* bpf: id of the program; setns: inode of the namespace; module: of the file; of clocks: seconds */
	struct span source; /* mount: device or directory; memfd: name; bpf: program; module: name */
	struct span target; /* mount point, new root; module: names of its file, as rec_exec.path */
	struct span type;   /* of file system; bpf: name of the tracepoint */
	struct span data;   /* of mount(2) */
	wire_errno result;
	__u32 value; /* bpf: type of the program; io_uring_setup: flags */
	__u16 call;  /* enum act_call */
	__u16 pad[3];
};

/* Users, groups and capabilities of a process at one time. */
struct rec_cred {
	__u64 permitted;
	__u64 effective;
	__u64 inheritable;
	__u64 ambient;
	wire_uid uid;
	wire_uid suid;
	wire_uid euid;
	wire_uid fsuid;
	wire_gid gid;
	wire_gid sgid;
	wire_gid egid;
	wire_gid fsgid;
};

struct rec_credential {
	struct rec_head head; /* who it is before, or after, as the tier has it */
	__u64 args[3];
	struct rec_cred before;
	struct rec_cred after;
	wire_errno result;
	__u32 number; /* of the system call under way, -1 not known; on FLAG_COMMITTED only */
	__u16 call;   /* enum act_call otherwise */
	__u16 pad[3];
};

struct rec_signal {
	struct rec_head head; /* of who sent it */
	wire_boottime target_start;
	__s32 signal;
	__s32 code; /* si_code */
	__u32 target_pid;
	wire_uid target_uid;
	wire_uid target_auid;
	__u32 outcome; /* enum of include/trace/events/signal.h: 0 delivered, 1 ignored, 2 pending already, 3 and 4 lost */
	char target_comm[16];
};

/* A file as it was after what was done, or before it was deleted. */
struct rec_inode {
	__u64 inode; /* 0: not known, and all the rest */
	__u64 size;
	__u64 atime; /* ns since 1970, two's complement */
	__u64 mtime;
	__u64 ctime;
	__u32 dev; /* of its super block: major << 20 | minor */
	__u32 mode;
	wire_uid uid;
	wire_gid gid;
	__u32 nlink;
	__u32 pad;
};

struct rec_file {
	struct rec_head head;
	struct rec_inode inode;
	__u64 file;	   /* which open file: of FILE_TOUCH and FILE_WRITE */
	struct span path;  /* names from the file up to the root of its file system, as rec_exec.path */
	struct span other; /* rename, link: the new name; from the root of the same file system */
	struct span text;  /* symlink: where it leads; xattr: its name */
	__u32 valid;	   /* attributes: iattr.ia_valid, as it was asked for */
	__u32 old_mode;	   /* attributes: before */
	__u16 op;	   /* enum file_op */
	__u16 pad[3];
};

/* A directory below which something is watched; inode 0 is for its file system as a whole. */
struct file_root {
	__u64 inode;
	__u32 dev;
	__u32 pad;
};

/* One per CPU and kind. generated = written to the ring + lost_* + filtered, with a ring;
 * with perf buffers generated = sent + lost_map + filtered, and what was sent may be lost.
 */
struct counts {
	__u64 generated;
	__u64 lost_ring; /* no room in the ring */
	__u64 lost_map;  /* no room to remember what a later record needs */
	__u64 filtered;  /* left out on purpose: a family or call nobody asked for */
	__u64 lost_busy; /* passed over while another program ran, as was found later */
	__u64 sent;	 /* legacy: handed to the perf buffer, which may have had no room */
};

/* legacy: what user space has set, where there are no variables. */
struct settings {
	__u64 kinds;	   /* bit n: the kind numbered n is wanted */
	__u64 boot_offset; /* CLOCK_BOOTTIME - CLOCK_MONOTONIC, ns */
	__u32 with_env;
	__u32 no_state_hook; /* nothing is attached where TCP changes state */
	__u32 dns_port;
	__s32 v1_controller; /* the rest as in the variables of lib/ring.h */
	__s32 v1_hierarchy;
	__u32 ovl_inode;
	__u32 ovl_metacopy;
	__u32 pad;
};

/* One per CPU. How deep the program that watches TCP states is in itself, and how many
 * changes the second one has seen meanwhile.
 */
struct state_busy {
	__u64 depth;
	__u64 seen;
};

#define WHOLE(t) _Static_assert(sizeof(struct t) % 8 == 0, #t " ends within eight bytes")
WHOLE(rec_head);
WHOLE(rec_exec);
WHOLE(rec_fork);
WHOLE(rec_exit);
WHOLE(rec_socket);
WHOLE(rec_dns);
WHOLE(rec_cgroup);
WHOLE(rec_act);
WHOLE(rec_cred);
WHOLE(rec_credential);
WHOLE(rec_signal);
WHOLE(rec_inode);
WHOLE(rec_file);
WHOLE(file_root);
WHOLE(counts);
WHOLE(settings);
WHOLE(state_busy);

#pragma clang diagnostic pop

#endif
