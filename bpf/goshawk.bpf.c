//go:build ignore

/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* One translation unit: every kind's programs, over one set of maps. */
#include "lib/kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "wire.h"
#include "lib/task.h"
#include "lib/path.h"

#include "exec.bpf.h"
#include "fork.bpf.h"
#include "exit.bpf.h"
#include "socket.bpf.h"
#include "call.bpf.h"
#include "way.bpf.h"
#include "datagram.bpf.h"
#include "dns.bpf.h"
#include "cgroup.bpf.h"
#include "act.bpf.h"
#include "rare.bpf.h"
#include "clone.bpf.h"
#include "credential.bpf.h"
#include "module.bpf.h"
#include "signal.bpf.h"
#ifndef LEGACY
#include "file_roots.bpf.h"
#include "file.bpf.h"
#include "file_at.bpf.h"
#endif

/* The kernel lets GPL-compatible programs alone read its memory. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

#ifndef LEGACY
/* Keep every record type in BTF, for the Go twins. */
const struct rec_exec *keep_exec __attribute__((unused));
const struct rec_fork *keep_fork __attribute__((unused));
const struct rec_exit *keep_exit __attribute__((unused));
const struct rec_socket *keep_socket __attribute__((unused));
const struct rec_dns *keep_dns __attribute__((unused));
const struct rec_cgroup *keep_cgroup __attribute__((unused));
const struct rec_act *keep_act __attribute__((unused));
const struct rec_credential *keep_credential __attribute__((unused));
const struct rec_signal *keep_signal __attribute__((unused));
const struct rec_file *keep_file __attribute__((unused));
const enum file_op *keep_file_op __attribute__((unused));
const enum act_call *keep_act_call __attribute__((unused));
const enum cgroup_op *keep_cgroup_op __attribute__((unused));
const enum flag *keep_flag __attribute__((unused));
const enum kind *keep_kind __attribute__((unused));
#endif
