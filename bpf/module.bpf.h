/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Kernel modules: module_load fires in load_module() (kernel/module/main.c) once a module is in
 * place and before its own code runs, in the process that asked; module_free when it goes, or
 * when its beginning failed.
 */

SHARED int emit_module(CTX_PARAM const char *name, u16 call)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	u32 slot = this_cpu();
	struct rec_act *r;
	struct build *b;

	if (!wanted(KIND_MODULE))
		return 0;
	COUNT(KIND_MODULE, generated);
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b) {
		COUNT(KIND_MODULE, lost_map);
		return 0;
	}
	r = (void *)b->data;
	fill_head(&r->head, t, KIND_MODULE, 0);
	r->args[0] = r->args[1] = r->args[2] = r->args[3] = r->args[4] = 0;
	r->object = 0;
	r->result = 0;
	r->value = 0;
	r->call = call;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
	b->off = sizeof(*r);
	r->source.off = r->target.off = r->type.off = r->data.off = b->off;
	r->source.len = r->target.len = r->type.len = r->data.len = 0;
	put_str(b, name, false, &r->source);
#ifndef LEGACY
	/* The descriptor of finit_module(2), which the caller still holds. */
	if (call == ACT_MODULE_LOAD && task_regs) {
		struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
		long number = CALL_NUMBER(regs);

		if (number == FINIT_MODULE) {
			struct file *file = file_of(t, (int)CALL_ARG1(regs));

			r->args[2] = CALL_ARG3(regs);
			r->type.off = b->off;
			if (CALL_ARG2(regs))
				put_str(b, (void *)CALL_ARG2(regs), true, &r->type); /* parameters */
			if (file)
				r->object = BPF_CORE_READ(file, f_inode, i_ino);
			if (file && !put_path(b, slot, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), &r->target, PATH_STEPS))
				r->head.flags |= FLAG_PATH_CUT;
		}
	}
#endif
	r->head.size = b->off;
	if (OUTPUT(critical, b->data, b->off))
		COUNT(KIND_MODULE, lost_ring);
	return 0;
}

#ifndef LEGACY

SEC("tp_btf/module_load")
int BPF_PROG(on_module_load_tp_btf, struct module *mod)
{
	hold_cpu();
	return release_cpu(emit_module(mod->name, ACT_MODULE_LOAD));
}

SEC("tp_btf/module_free")
int BPF_PROG(on_module_free_tp_btf, struct module *mod)
{
	hold_cpu();
	return release_cpu(emit_module(mod->name, ACT_MODULE_FREE));
}

SEC("raw_tp/module_load")
int BPF_PROG(on_module_load_raw_tp, struct module *mod)
{
	hold_cpu();
	return release_cpu(emit_module((void *)mod + bpf_core_field_offset(struct module, name), ACT_MODULE_LOAD));
}

SEC("raw_tp/module_free")
int BPF_PROG(on_module_free_raw_tp, struct module *mod)
{
	hold_cpu();
	return release_cpu(emit_module((void *)mod + bpf_core_field_offset(struct module, name), ACT_MODULE_FREE));
}

#endif

/* The classic tracepoints hand the name over. */
struct trace_event_raw_module_load {
	u32 __data_loc_name;
} __attribute__((preserve_access_index));
struct trace_event_raw_module_free {
	u32 __data_loc_name;
} __attribute__((preserve_access_index));

SEC("tracepoint/module/module_load")
int on_module_load_tracepoint(struct trace_event_raw_module_load *ctx)
{
	hold_cpu();
	return release_cpu(emit_module(CTX (void *)ctx + (ctx->__data_loc_name & 0xffff), ACT_MODULE_LOAD));
}

SEC("tracepoint/module/module_free")
int on_module_free_tracepoint(struct trace_event_raw_module_free *ctx)
{
	hold_cpu();
	return release_cpu(emit_module(CTX (void *)ctx + (ctx->__data_loc_name & 0xffff), ACT_MODULE_FREE));
}
