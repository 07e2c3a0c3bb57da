/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Namespaces made together with a process, by clone(2) or clone3(2). sched_process_fork fires once
 * the child has what it was given, however it was asked for: its namespaces are compared with
 * those of its maker.
 */
#ifndef LEGACY

#define CLONE_NEWTIME 0x80
#define CLONE_NEWNS 0x20000
#define CLONE_NEWCGROUP 0x2000000
#define CLONE_NEWUTS 0x4000000
#define CLONE_NEWIPC 0x8000000
#define CLONE_NEWUSER 0x10000000
#define CLONE_NEWPID 0x20000000
#define CLONE_NEWNET 0x40000000

/* The bit, where a field differs: without a way of its own for each, or the verifier walks them all. */
#define DIFFERS(a, b, field, bit)                                                       \
	({                                                                              \
		u64 d_ = 0, n_;                                                         \
		if (bpf_core_field_exists((a)->field))                                  \
			d_ = (u64)BPF_CORE_READ(a, field) ^ (u64)BPF_CORE_READ(b, field); \
		n_ = -d_;                                                               \
		ONE_WAY(n_);                                                            \
		((d_ | n_) >> 63) * (bit);                                              \
	})

SHARED int emit_clone(struct task_struct *parent, struct task_struct *child)
{
	struct nsproxy *of = BPF_CORE_READ(parent, nsproxy), *has = BPF_CORE_READ(child, nsproxy);
	struct act a = ACT_OF(KIND_NAMESPACE, ACT_CLONE);
	const struct cred *maker = BPF_CORE_READ(parent, real_cred), *made_of = BPF_CORE_READ(child, real_cred);
	u64 made;

	if (!of || !has)
		return 0;
	made = DIFFERS(maker, made_of, user_ns, CLONE_NEWUSER) | DIFFERS(of, has, mnt_ns, CLONE_NEWNS) |
	       DIFFERS(of, has, pid_ns_for_children, CLONE_NEWPID) | DIFFERS(of, has, net_ns, CLONE_NEWNET) |
	       DIFFERS(of, has, uts_ns, CLONE_NEWUTS) | DIFFERS(of, has, ipc_ns, CLONE_NEWIPC) |
	       DIFFERS(of, has, cgroup_ns, CLONE_NEWCGROUP) | DIFFERS(of, has, time_ns_for_children, CLONE_NEWTIME);
	if (!made)
		return 0;
	a.args[0] = made;
	a.args[1] = BPF_CORE_READ(child, tgid);
	a.args[2] = start_of(child);
	return emit_act(&a, ACT_CLONE, 0);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_clone_tp_btf, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_clone(parent, child));
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_clone_raw_tp, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_clone(parent, child));
}

#endif
