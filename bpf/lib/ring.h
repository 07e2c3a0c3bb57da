/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Where records go, what counts them, and what user space has set: in two versions. The
 * modern object (from 5.8) has ring buffers and variables. The legacy object, compiled with
 * -DLEGACY, runs from 3.10 (as Red Hat has it since 7.6) on: with perf buffers, one array
 * for settings, and none of what those kernels lack (no loop, no call, 4096 instructions).
 */
#ifndef GOSHAWK_RING_H
#define GOSHAWK_RING_H

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KIND_MAX);
	__type(key, u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* A softirq may interrupt the same program on this CPU, hence the atomic adds. */
#define COUNT(kind, what)                                                  \
	({                                                                 \
		u32 key_ = (kind);                                         \
		struct counts *c_ = bpf_map_lookup_elem(&counters, &key_); \
		if (c_)                                                    \
			__sync_fetch_and_add(&c_->what, 1);                \
	})

/* For the verifier, which may have forgotten: n lies in 1 ... max, a power of two. The compiler
 * must not know that this changes nothing.
 */
#define BOUND(n, max)                                   \
	({                                              \
		u64 n_ = (n);                           \
		asm volatile("" : "+r"(n_));            \
		n_ = (n_ - 1) & ((max) - 1);            \
		asm volatile("" : "+r"(n_));            \
		n_ + 1;                                 \
	})

/* Where ways have met, x is a value: otherwise the compiler may carry each way on by itself,
 * with jumps back to what they share. Old verifiers like neither.
 */
#define ONE_WAY(x) asm volatile("" : "+r"(x))

/* A record has at most so many bytes: an entry of a perf buffer counts them in 16 bits. */
#define RECORD_MAX 65536

#ifndef LEGACY

/* Two rings: a flood of socket records cannot push out an exec. User space sets the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} critical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} bulk SEC(".maps");

/* RESERVE gives room for a record of this type, or NULL; SUBMIT hands it over, or DISCARD
 * gives it back. OUTPUT hands over what was built elsewhere; it returns 0, or an error.
 */
#define RESERVE(ring, type) ((type *)bpf_ringbuf_reserve(&ring, sizeof(type), 0))
#define SUBMIT(ring, record) bpf_ringbuf_submit(record, 0)
#define OUTPUT(ring, record, size) bpf_ringbuf_output(&ring, record, BOUND(size, RECORD_MAX), 0)

/* The context of a program, which perf_event_output() wants: handed down where that is. */
#define CTX_PARAM
#define CTX

/* What several programs of one object share is compiled once, as BPF-to-BPF calls. */
#define SHARED static __noinline

#define NO_PREALLOC 1 /* BPF_F_NO_PREALLOC; user space takes it away before 6.1 */

/* Loops stay loops: the verifier knows them. */
#define UNROLL(turns)

/* Set by user space before the object is loaded. */
volatile const u64 kinds = ~0ULL; /* bit n: the kind numbered n is wanted */
volatile const bool with_env;
volatile u32 no_state_hook; /* nothing is attached to inet_sock_set_state */
volatile u32 uring_hook;    /* something is attached to io_uring_complete */
volatile u64 by_call;	    /* bit n: the kind numbered n is told at native system calls alone */
volatile const u16 dns_port = 53;
volatile const bool ovl_inode;	  /* from 4.13 on overlayfs has struct ovl_inode */
volatile const bool ovl_metacopy; /* from 4.19 on an upper file may lack its content there */

/* The v1 controller (its number in css_set.subsys) and hierarchy by which containers are
 * told where cgroup v2 does not tell. -1: v2 is all there is.
 */
volatile const __s32 v1_controller = -1;
volatile const __s32 v1_hierarchy = -1;
volatile const bool cgroup_path_told; /* from 4.19 on the tracepoints hand the path over */
volatile const bool task_regs;	      /* from 5.15 on there is bpf_task_pt_regs() */
volatile const bool cgroup_task_regs; /* and programs of cgroups may call it, later */

#define SETTING(name) (name)

#define now() bpf_ktime_get_boot_ns()
#define this_cpu() bpf_get_smp_processor_id()

/* Tracepoints and fexit programs may be preempted: the first from 7.0 on, the second always.
 * The kernel runs no program within itself on one CPU, not even for another task: what
 * happens meanwhile is passed over (and counted: recursion_misses in the program's info).
 * Holding the CPU leaves a moment for that, and keeps a CPU's build for one record at a time.
 */
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;

/* Set by user space from 6.15 on, where these functions may surround a call of walk(). */
volatile const bool preemptible;

static __always_inline void hold_cpu(void)
{
	if (preemptible)
		bpf_preempt_disable();
}

static __always_inline int release_cpu(int result)
{
	if (preemptible)
		bpf_preempt_enable();
	return result;
}

#else /* LEGACY */

/* Both kinds of memory, by its address. From 5.5 on there are helpers for each. */
#define bpf_probe_read_kernel bpf_probe_read
#define bpf_probe_read_user bpf_probe_read
#define bpf_probe_read_kernel_str bpf_probe_read_str
#define bpf_probe_read_user_str bpf_probe_read_str

/* User space makes room for as many as there are CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} critical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} bulk SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} options SEC(".maps");

/* Where a record is made that is handed over by copy. These kernels run one program at a
 * time on a CPU, with preemption disabled (trace_call_bpf() in kernel/trace/bpf_trace.c).
 */
struct scratch {
	u32 cpu;
	u32 pad;
	u64 told; /* the sk_buff that was told last */
	union { /* the types are named for BTF, where a test compares them with their Go twins */
		struct rec_exec exec;
		struct rec_fork fork;
		struct rec_exit exit;
		struct rec_socket socket;
		struct rec_dns dns;
		struct rec_cgroup cgroup;
		struct rec_act act;
		struct rec_credential credential;
		struct rec_signal signal;
		u64 room[1100];
	} record;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *own_scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

#define SETTING(name)                                                           \
	({                                                                      \
		u32 zero_ = 0;                                                  \
		struct settings *s_ = bpf_map_lookup_elem(&options, &zero_);   \
		s_ ? s_->name : 0;                                              \
	})

#define now() (bpf_ktime_get_ns() + SETTING(boot_offset))

/* As user space has written it there: one helper less to rely on. */
static __always_inline u32 this_cpu(void)
{
	struct scratch *s = own_scratch();

	return s ? s->cpu : ~0U;
}

#define CTX_PARAM void *ctx,
#define CTX ctx,
#define SHARED static __always_inline
#define NO_PREALLOC 0
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(turns) PRAGMA(clang loop unroll_count(turns))

/* Before 5.1 the helper does not tell whether there was room. Records are numbered, so that
 * user space finds what is missing.
 */
static __always_inline int output(void *ctx, void *buffer, struct rec_head *h, u32 kind, u32 size)
{
	struct counts *c = bpf_map_lookup_elem(&counters, &kind);

	if (c) {
		c->sent++;
		h->number = c->sent;
	}
	bpf_perf_event_output(ctx, buffer, 0xffffffff /* this CPU's */, h, size);
	return 0;
}

#define RESERVE(ring, type)                                                        \
	({                                                                         \
		struct scratch *s_ = own_scratch();                                \
		_Static_assert(sizeof(type) <= sizeof(s_->record), "it has room"); \
		s_ ? (type *)&s_->record : NULL;                                    \
	})
#define SUBMIT(ring, r) output(ctx, &ring, (void *)(r), ((struct rec_head *)(r))->kind, sizeof(*(r)))
#define OUTPUT(ring, r, size) output(ctx, &ring, (void *)(r), ((struct rec_head *)(r))->kind, BOUND(size, RECORD_MAX))

static __always_inline void hold_cpu(void) {}
static __always_inline int release_cpu(int result) { return result; }

#endif

static __always_inline bool wanted(u32 kind)
{
	return SETTING(kinds) & (1ULL << kind);
}

#endif
