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

#define DIFFERS(a, b, field) (bpf_core_field_exists((a)->field) && BPF_CORE_READ(a, field) != BPF_CORE_READ(b, field))

SHARED int emit_clone(struct task_struct *parent, struct task_struct *child)
{
	struct nsproxy *of = BPF_CORE_READ(parent, nsproxy), *has = BPF_CORE_READ(child, nsproxy);
	struct act a = ACT_OF(KIND_NAMESPACE, ACT_CLONE);
	u64 made = 0;

	if (BPF_CORE_READ(parent, real_cred, user_ns) != BPF_CORE_READ(child, real_cred, user_ns))
		made |= CLONE_NEWUSER;
	if (of && has && of != has) {
		if (DIFFERS(of, has, mnt_ns))
			made |= CLONE_NEWNS;
		if (DIFFERS(of, has, pid_ns_for_children))
			made |= CLONE_NEWPID;
		if (DIFFERS(of, has, net_ns))
			made |= CLONE_NEWNET;
		if (DIFFERS(of, has, uts_ns))
			made |= CLONE_NEWUTS;
		if (DIFFERS(of, has, ipc_ns))
			made |= CLONE_NEWIPC;
		if (DIFFERS(of, has, cgroup_ns))
			made |= CLONE_NEWCGROUP;
		if (DIFFERS(of, has, time_ns_for_children))
			made |= CLONE_NEWTIME;
	}
	if (!made)
		return 0;
	a.args[0] = made;
	a.args[1] = BPF_CORE_READ(child, tgid);
	a.args[2] = start_of(child);
	return emit_act(&a, 0);
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
