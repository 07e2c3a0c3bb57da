/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The kernel's structures, as far as we read them. CO-RE relocates every access against
 * the running kernel's BTF, so only names and types matter here, not order or size; a name
 * with three underscores is a flavour of an older or newer kernel.
 */
#ifndef GOSHAWK_KERNEL_H
#define GOSHAWK_KERNEL_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u16 __le16;
typedef __u32 __le32;
typedef __u64 __be64;
typedef __u64 __le64;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef int pid_t;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

enum bpf_prog_type {
	BPF_PROG_TYPE_UNSPEC,
};
enum bpf_func_id {
	BPF_FUNC_task_pt_regs = 175,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;
typedef struct { int counter; } atomic_t;
typedef struct { __s64 counter; } atomic64_t;

/* Two numbers of 32 bits before 6.3, the lower first. */
typedef struct { u64 val; } kernel_cap_t;
struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid, fsgid;
	kernel_cap_t cap_inheritable, cap_permitted, cap_effective, cap_ambient;
	void *user_ns;
};
/* Without CONFIG_UIDGID_STRICT_TYPE_CHECKS, which went in 3.14. */
struct cred___plain {
	u32 uid, suid, euid, fsuid;
	u32 gid, sgid, egid, fsgid;
};

struct qstr {
	union {
		struct {
			u32 hash;
			u32 len;
		};
		u64 hash_len;
	};
	const unsigned char *name;
};

struct super_block {
	u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode___plain {
	u32 i_uid;
	u32 i_gid;
};
struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};
struct inode {
	__s64 i_size;
	__s64 i_atime_sec, i_mtime_sec, i_ctime_sec;
	u32 i_atime_nsec, i_mtime_nsec, i_ctime_nsec;
	__u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
};

struct inode___before_6_11 {
	struct timespec64 __i_atime, __i_mtime, __i_ctime;
};
struct inode___before_6_7 { /* i_ctime before 6.6 */
	struct timespec64 i_atime, i_mtime, i_ctime;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct fs_struct {
	struct path root;
	struct path pwd;
};

struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
	struct file *exe_file;
	struct task_struct *owner;
};
struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};
struct iattr {
	unsigned int ia_valid;
	struct file *ia_file;
};
struct renamedata {
	struct dentry *old_dentry;
	struct dentry *new_dentry;
	unsigned int flags;
};

struct tty_driver {
	int major;
	int minor_start;
};
struct tty_struct {
	struct tty_driver *driver;
	int index;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct tty_struct *tty;
	u64 utime;
	u64 stime;
	unsigned long long sum_sched_runtime;
	unsigned long maxrss;
};

struct kernfs_node {
	u64 id;
};
union kernfs_node_id___before_5_5 {
	u64 id;
};
struct kernfs_node___before_5_5 {
	union kernfs_node_id___before_5_5 id;
};
struct kernfs_node___before_4_14 {
	unsigned int ino;
};
struct cgroup___before_3_15 {
	struct dentry *dentry;
};
struct cgroup_root {
	int hierarchy_id;
};
struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};
struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct ns_common {
	unsigned int inum;
};
struct net {
	struct ns_common ns;
};
struct net___before_3_19 {
	unsigned int proc_inum;
};
struct nsproxy {
	void *uts_ns;
	void *ipc_ns;
	void *mnt_ns;
	void *pid_ns_for_children;
	struct net *net_ns;
	void *time_ns;
	void *time_ns_for_children;
	void *cgroup_ns;
};
struct pid_namespace {
	struct ns_common ns;
};
struct pid_namespace___before_3_19 {
	unsigned int proc_inum;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct list_head {
	struct list_head *next, *prev;
};

struct thread_info {
	unsigned long flags;
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	pid_t pid;
	pid_t tgid;
	struct task_struct *real_parent;
	struct list_head children;
	struct list_head sibling;
	struct task_struct *group_leader;
	u64 start_boottime;
	const struct cred *real_cred;
	kuid_t loginuid;
	unsigned int sessionid;
	char comm[16];
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	struct pid *thread_pid;
	struct sched_entity se;
	int exit_code;
	u64 utime;
	u64 stime;
	unsigned int flags;
};
struct task_struct___before_5_5 {
	u64 real_start_time;
};
struct pid_link___old {
	struct pid *pid;
};
struct task_struct___before_4_19 {
	struct pid_link___old pids[1];
};
struct timespec {
	long tv_sec;
	long tv_nsec;
};
struct task_struct___before_3_17 {
	struct timespec real_start_time;
};
struct task_struct___plain {
	u32 loginuid;
};

struct module {
	char name[56];
};

struct bpf_prog_aux {
	u32 id;
	char name[16];
};
struct bpf_prog {
	enum bpf_prog_type type;
	u32 len;
	struct bpf_prog_aux *aux;
};

struct kernel_siginfo {
	int si_code;
};

struct linux_binprm {
	struct mm_struct *mm;
	struct file *file;
	int argc;
	int envc;
	const char *filename;
	const char *interp;
};

struct in6_addr {
	union {
		u8 u6_addr8[16];
	} in6_u;
};
typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	struct {
		__be32 skc_daddr;
		__be32 skc_rcv_saddr;
	};
	struct {
		__be16 skc_dport;
		__u16 skc_num;
	};
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_type;
	u16 sk_protocol;
	int sk_err;
	struct socket *sk_socket;
};
struct sock_common___before_4_1 {
	struct net *skc_net;
};
struct sock___before_4_1 {
	struct sock_common___before_4_1 __sk_common;
};
struct sock___before_3_18 {
	unsigned long sk_flags;
};
/* Before 5.6 type and protocol were bit fields of one word. */
struct sock___before_5_6 {
	unsigned int sk_protocol : 8, sk_type : 16;
};

struct inet_sock {
	struct sock sk;
	__be32 inet_saddr;
	__be16 inet_sport;
};

struct tcp_sock {
	u32 snd_una;
	u32 write_seq;
	u64 bytes_received;
	u64 bytes_acked;
	u64 bytes_sent;
	u64 bytes_retrans;
	bool is_mptcp;
};

struct sockaddr_un {
	__u16 sun_family;
	char sun_path[108];
};
struct unix_address {
	int len;
	struct sockaddr_un name[0];
};
struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct socket {
	short type;
	struct file *file;
	struct sock *sk;
};

struct sockaddr;
struct io_cqe {
	__s32 res;
};
struct io_kiocb {
	struct file *file;
	u8 opcode;
	struct io_cqe cqe;
};
struct io_connect {
	struct sockaddr *addr;
	int addr_len;
};
struct io_accept {
	u32 file_slot;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bx, di, si, dx, cx, ax, r10, r8, r9, orig_ax;
};
#define FUNC_ARG1(r) ((r)->di)
#define FUNC_ARG2(r) ((r)->si)
#define FUNC_ARG3(r) ((r)->dx)
#define FUNC_ARG4(r) ((r)->cx)
#define FUNC_ARG5(r) ((r)->r8)
#define FUNC_ARG6(r) ((r)->r9)
#define FUNC_RESULT(r) ((r)->ax)
#define CALL_ARG1(r) BPF_CORE_READ(r, di)
#define CALL_ARG2(r) BPF_CORE_READ(r, si)
#define CALL_ARG3(r) BPF_CORE_READ(r, dx)
#define CALL_ARG4(r) BPF_CORE_READ(r, r10)
#define CALL_ARG5(r) BPF_CORE_READ(r, r8)
#define CALL_NUMBER(r) BPF_CORE_READ(r, orig_ax)
/* of a 32-bit call */
#define CALL32_ARG1(r) BPF_CORE_READ(r, bx)
#define CALL32_ARG2(r) BPF_CORE_READ(r, cx)
#define CALL32_ARG3(r) BPF_CORE_READ(r, dx)
#define CALL32_ARG4(r) BPF_CORE_READ(r, si)
#define CALL32_ARG5(r) BPF_CORE_READ(r, di)
/* TS_COMPAT of asm/thread_info.h: a 32-bit call, by whichever program */
#define IN_COMPAT_CALL(t) (BPF_CORE_READ(t, thread_info.status) & 2)
#define FINIT_MODULE 313
#define PTRACE_NUMBER 101
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	u64 regs[31];
	u64 orig_x0;
	__s32 syscallno;
};
#define FUNC_ARG1(r) ((r)->regs[0])
#define FUNC_ARG2(r) ((r)->regs[1])
#define FUNC_ARG3(r) ((r)->regs[2])
#define FUNC_ARG4(r) ((r)->regs[3])
#define FUNC_ARG5(r) ((r)->regs[4])
#define FUNC_ARG6(r) ((r)->regs[5])
#define FUNC_RESULT(r) ((r)->regs[0])
#define CALL_ARG1(r) BPF_CORE_READ(r, orig_x0)
#define CALL_ARG2(r) BPF_CORE_READ(r, regs[1])
#define CALL_ARG3(r) BPF_CORE_READ(r, regs[2])
#define CALL_ARG4(r) BPF_CORE_READ(r, regs[3])
#define CALL_ARG5(r) BPF_CORE_READ(r, regs[4])
#define CALL_NUMBER(r) BPF_CORE_READ(r, syscallno)
/* TIF_32BIT of asm/thread_info.h */
#define IN_COMPAT_CALL(t) (BPF_CORE_READ(t, thread_info.flags) & (1 << 22))
#define FINIT_MODULE 273
#define PTRACE_NUMBER 117
#endif

/* The classic tracepoints syscalls/sys_enter_* and sys_exit_*. */
struct trace_entry {
	unsigned short type;
	unsigned char flags;
	unsigned char preempt_count;
	int pid;
};
struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	long id;
	unsigned long args[6];
};
struct trace_event_raw_sys_exit {
	struct trace_entry ent;
	long id;
	long ret;
};

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd __attribute__((aligned(8)));
	struct file *file;
};

#pragma clang attribute pop

/* Part of the BPF ABI (linux/bpf.h): the loader rewrites accesses to these by position,
 * so they stand outside the relocated ones, and whole.
 */
struct bpf_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority;
	__u32 src_ip4, src_ip6[4], src_port;
	__be16 dst_port;
	__u16 pad;
	__u32 dst_ip4, dst_ip6[4], state;
	__s32 rx_queue_mapping;
};
struct bpf_sock_addr {
	__u32 user_family, user_ip4, user_ip6[4], user_port;
	__u32 family, type, protocol, msg_src_ip4, msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		u64 sk_align;
	};
};
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol;
	__u32 vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex, tc_index;
	__u32 cb[5];
	__u32 hash, tc_classid, data, data_end, napi_id;
};

#endif
