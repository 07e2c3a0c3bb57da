package audit

import (
	"encoding/binary"
	"path/filepath"
	"slices"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Key is the key of every rule that we add.
const Key = "goshawk"

// Numbers of linux/audit.h; a test compares them with that file.
const (
	listTask    = 1
	listExit    = 4
	listExclude = 5 // of records, by their type
	listRing    = 7 // AUDIT_FILTER_URING_EXIT, from Linux 5.16

	actNever  = 0
	actAlways = 2

	onPID         = 0
	onUID         = 1
	onArch        = 11
	onMsgType     = 12
	onExit        = 103
	onSuccess     = 104
	onWatch       = 105
	onPerm        = 106
	onDir         = 107
	onExe         = 112
	onArg0        = 200
	onKey         = 210
	equal         = 0x40000000
	notEqual      = 0x30000000
	atLeast       = 0x60000000
	atMost        = 0x50000000
	hasBits       = 0x48000000 // AUDIT_BIT_TEST: all of the bits
	prepend       = 0x10       // AUDIT_FILTER_PREPEND
	maskWords     = 64
	maxFields     = 64
	ruleHead      = 4 * (3 + maskWords + 3*maxFields + 1) // of struct audit_rule_data, before its strings
	maxPath       = 4096
	permAll       = 15
	cloneThread   = 0x10000 // CLONE_THREAD
	minusEAGAIN   = 1<<32 - 11
	sigURG        = 23
	ptraceSeize   = 0x4206
	protWriteExec = 6 // PROT_WRITE|PROT_EXEC
	progLoad      = 5 // BPF_PROG_LOAD
)

// field is a condition of a rule. Text is for those on strings, whose value is its length.
type field struct {
	on, op, value uint32
	text          string
}

// mask is a set of system calls, or of io_uring's operations, by number.
type mask [maskWords]uint32

func (m *mask) add(n int)      { m[n/32] |= 1 << (n % 32) }
func (m *mask) has(n int) bool { return n < 32*maskWords && m[n/32]&(1<<(n%32)) != 0 }

func (m *mask) join(o *mask) {
	for i := range m {
		m[i] |= o[i]
	}
}

// rule is one rule of the kernel, and which groups rest on it.
type rule struct {
	what   string // for people
	list   uint32
	action uint32
	mask   mask
	fields []field
	groups []int // indexes in groups; empty for an exclusion
}

// append makes a struct audit_rule_data of linux/audit.h.
func (r *rule) append(dst []byte) []byte {
	u32 := func(v uint32) { dst = binary.NativeEndian.AppendUint32(dst, v) }
	u32(r.list)
	u32(r.action)
	u32(uint32(len(r.fields)))
	for _, w := range r.mask {
		u32(w)
	}
	each := func(get func(f *field) uint32) {
		for i := range r.fields {
			u32(get(&r.fields[i]))
		}
		dst = append(dst, make([]byte, 4*(maxFields-len(r.fields)))...)
	}
	text := 0
	each(func(f *field) uint32 { return f.on })
	each(func(f *field) uint32 {
		if f.text != "" {
			text += len(f.text)
			return uint32(len(f.text))
		}
		return f.value
	})
	each(func(f *field) uint32 { return f.op })
	u32(uint32(text))
	for i := range r.fields {
		dst = append(dst, r.fields[i].text...)
	}
	return dst
}

// group is rules that belong together: what a hook is elsewhere.
type group struct {
	name  string
	kinds []event.ID
	// rank is the importance of what the group tells: the lowest goes first when there is
	// more than can be read.
	rank  int
	parts []part
	ring  []string // io_uring's operations that do the same
	free  bool     // told without a rule
}

// part is calls that are told under the same conditions.
type part struct {
	calls  []string
	fields []field
}

// Ranks of groups.
const (
	rankFile    = iota // what many programs do all the time
	rankSocket         //
	rankProcess        // fork and exit, which other records and /proc partly make up for
	rankExec
	rankSecurity // rare, and what a flood would be meant to hide
)

var succeeded = []field{{onSuccess, equal, 1, ""}}

// answered leaves out accepts that would have had to wait.
var answered = field{onExit, notEqual, minusEAGAIN, ""}

func arg(n, op, value uint32) field { return field{onArg0 + n, op, value, ""} }

// groups is everything that rules can tell. A condition is the kernel's to check: what it
// leaves out costs no record.
var groups = []group{
	{name: "exec", kinds: []event.ID{event.KindExec}, rank: rankExec, parts: []part{
		{[]string{"execve", "execveat"}, succeeded},
	}},
	// Threads made by clone are left out by a rule of their own. clone3 has its flags in
	// memory, where rules cannot look.
	{name: "fork", kinds: []event.ID{event.KindFork}, rank: rankProcess, parts: []part{
		{[]string{"fork", "vfork", "clone", "clone3"}, succeeded},
	}},
	// Told as the call is made: it does not return, so it has no result. A process that a
	// signal ends makes no call.
	{name: "exit", kinds: []event.ID{event.KindExit}, rank: rankProcess, parts: []part{
		{[]string{"exit_group"}, nil},
	}},
	{name: "connect", kinds: []event.ID{event.KindConnect}, rank: rankSocket, ring: []string{"connect"}, parts: []part{
		{[]string{"connect"}, nil},
		{[]string{"socketcall"}, []field{arg(0, equal, 3)}},
	}},
	// A server that does not block accepts until there is nothing left: no event, unless
	// Options.NullAccepts.
	{name: "accept", kinds: []event.ID{event.KindAccept}, rank: rankSocket, ring: []string{"accept"}, parts: []part{
		{[]string{"accept", "accept4"}, []field{answered}},
		{[]string{"socketcall"}, []field{answered, arg(0, equal, 5)}},
		{[]string{"socketcall"}, []field{answered, arg(0, equal, 18)}},
	}},
	{name: "bind", kinds: []event.ID{event.KindBind}, rank: rankSocket, ring: []string{"bind"}, parts: []part{
		{[]string{"bind"}, nil},
		{[]string{"socketcall"}, []field{arg(0, equal, 2)}},
	}},
	{name: "listen", kinds: []event.ID{event.KindListen}, rank: rankSocket, ring: []string{"listen"}, parts: []part{
		{[]string{"listen"}, nil},
		{[]string{"socketcall"}, []field{arg(0, equal, 4)}},
	}},
	{name: "file", kinds: []event.ID{event.KindFile}, rank: rankFile}, // its rules come of Options.Watches
	{name: "credential", kinds: []event.ID{event.KindCredential}, rank: rankSecurity, parts: []part{
		{[]string{"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
			"setgroups", "capset", "setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32",
			"setfsuid32", "setfsgid32", "setgroups32"}, nil},
	}},
	// Taking hold of a process and writing to it, not each step of a debugger's.
	{name: "ptrace", kinds: []event.ID{event.KindPtrace}, rank: rankSecurity, parts: []part{
		{[]string{"ptrace"}, []field{arg(0, atLeast, 4), arg(0, atMost, 6)}},   // POKETEXT, POKEDATA, POKEUSR
		{[]string{"ptrace"}, []field{arg(0, atLeast, 13), arg(0, atMost, 16)}}, // SETREGS, SETFPREGS, ATTACH
		{[]string{"ptrace"}, []field{arg(0, equal, ptraceSeize)}},
		{[]string{"process_vm_writev"}, nil},
	}},
	// Signal 0 asks whether a process is there. SIGURG is how Go's scheduler interrupts
	// its own threads, thousands of times a second.
	{name: "signal", kinds: []event.ID{event.KindSignal}, rank: rankSocket, parts: []part{
		{[]string{"kill", "tkill", "rt_sigqueueinfo", "pidfd_send_signal"}, []field{arg(1, notEqual, 0)}},
		{[]string{"tgkill", "rt_tgsigqueueinfo"}, []field{arg(2, notEqual, 0), arg(2, notEqual, sigURG)}},
	}},
	{name: "module", kinds: []event.ID{event.KindModule}, rank: rankSecurity, parts: []part{
		{[]string{"init_module", "finit_module", "delete_module"}, nil},
	}},
	{name: "bpf", kinds: []event.ID{kindBPF}, rank: rankSecurity, parts: []part{
		{[]string{"bpf"}, []field{arg(0, equal, progLoad)}},
	}},
	{name: "mount", kinds: []event.ID{event.KindMount}, rank: rankSecurity, parts: []part{
		{[]string{"mount", "umount", "umount2", "move_mount", "mount_setattr", "pivot_root"}, nil},
	}},
	{name: "namespace", kinds: []event.ID{kindNamespace}, rank: rankSecurity, parts: []part{
		{[]string{"unshare", "setns"}, nil},
	}},
	{name: "memory", kinds: []event.ID{kindMemory}, rank: rankSocket, parts: []part{
		{[]string{"memfd_create"}, nil},
		{[]string{"mprotect", "pkey_mprotect", "mmap", "mmap2"}, []field{arg(2, hasBits, protWriteExec)}},
	}},
	// Told without a rule: by programs (PAM, sshd, sudo, systemd), and by the kernel.
	{name: "user", kinds: []event.ID{event.KindUser}, rank: rankSecurity, free: true},
	{name: "policy", kinds: []event.ID{event.KindPolicy}, rank: rankSecurity, free: true},
}

// Kinds whose numbers are kept for them in internal/event. Their rules are added once
// events of theirs can be.
const (
	kindBPF       event.ID = 16
	kindNamespace event.ID = 18
	kindMemory    event.ID = 19
)

// Kinds lists what audit can tell of.
func Kinds() []event.ID {
	var all []event.ID
	for i := range groups {
		for _, k := range groups[i].kinds {
			if event.ByID(k) != nil && !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	return all
}

// Free reports whether audit tells of a kind without a rule: to whoever reads it.
func Free(kind event.ID) bool {
	return slices.ContainsFunc(groups, func(g group) bool { return g.free && slices.Contains(g.kinds, kind) })
}

// fileCalls are the calls that the kernel's classes of permissions w and a hold
// (asm-generic/audit_dir_write.h, audit_write.h, audit_change_attr.h), and the three ways to
// open. Naming them spares all others the look at their paths.
var fileCalls = []string{"open", "openat", "openat2", "creat", "truncate", "truncate64", "rename", "renameat",
	"renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat", "mknod",
	"mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "chown32",
	"fchown32", "lchown32", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr",
	"fremovexattr", "removexattrat"}

// fileRing are io_uring's operations on files that have a path. Which of them only read
// cannot be told there: no permission is checked.
var fileRing = []string{"openat", "openat2", "renameat", "unlinkat", "mkdirat", "symlinkat", "linkat", "setxattr",
	"fsetxattr", "ftruncate"}

// Perm is what is told of a watched file, bits of AUDIT_PERM_*.
type Perm uint32

// Permissions of a Watch.
const (
	PermExec Perm = 1 << iota
	PermWrite
	PermRead
	PermAttr
)

// Watch is a file, or a directory with all below it, whose changes are told.
type Watch struct {
	Path string // absolute
	Dir  bool   // it is a directory, which must exist
	Perm Perm   // 0 is PermWrite|PermAttr
}

// wanted reports whether one of the group's kinds is, and exists.
func (g *group) wanted(kinds []event.ID) bool {
	return slices.ContainsFunc(g.kinds, func(k event.ID) bool {
		return event.ByID(k) != nil && (kinds == nil || slices.Contains(kinds, k))
	})
}

// plan lists the rules for o, in the order in which they are to be added. Rules of equal
// conditions are one: each costs every system call on the machine a look. What is left out
// is so by a condition of each rule, as far as the kernel has one: a rule of its own would
// hide the same from the rules that others add after it.
func plan(o *Options, self uint32, beside bool) []rule {
	var all, told, ring []rule
	but := o.but(self)
	add := func(rules []rule, g int, list uint32, m mask, fields []field) []rule {
		if m == (mask{}) {
			return rules
		}
		fields = append(slices.Clip(fields), but...)
		for i := range rules {
			r := &rules[i]
			if slices.Equal(r.fields, fields) {
				r.mask.join(&m)
				if !slices.Contains(r.groups, g) {
					r.groups = append(r.groups, g)
					r.what += "," + groups[g].name
				}
				return rules
			}
		}
		return append(rules, rule{what: groups[g].name, list: list, action: actAlways, mask: m, fields: fields, groups: []int{g}})
	}
	for g := range groups {
		group := &groups[g]
		if !group.wanted(o.Kinds) {
			continue
		}
		for _, a := range abis {
			for _, p := range group.parts {
				fields := []field{{onArch, equal, a.arch, ""}}
				for _, f := range p.fields {
					if f != answered || !o.NullAccepts {
						fields = append(fields, f)
					}
				}
				told = add(told, g, listExit, a.mask(p.calls), fields)
			}
			if group.name == "fork" && !beside {
				all = append(all, rule{what: "threads", list: listExit, action: actNever, mask: a.mask([]string{"clone"}),
					fields: append([]field{{onArch, equal, a.arch, ""}, arg(0, hasBits, cloneThread)}, but...)})
			}
		}
		if !o.NoRing {
			ring = add(ring, g, listRing, ringMask(group.ring), nil)
		}
		if group.name != "file" {
			continue
		}
		for _, w := range o.Watches {
			r := w.rule()
			r.groups, r.fields = []int{g}, append(r.fields, but...)
			told = append(told, r)
			if w.Dir && !o.NoRing {
				ring = append(ring, rule{what: r.what + " by io_uring", list: listRing, action: actAlways, mask: ringMask(fileRing),
					fields: append([]field{{onDir, equal, 0, filepath.Clean(w.Path)}}, but...), groups: []int{g}})
			}
		}
	}
	all = slices.Concat(all, o.exclusions(told, listExit, but), o.exclusions(ring, listRing, but), told, ring)
	for i := range all {
		all[i].fields = append(slices.Clip(all[i].fields), field{onKey, equal, 0, Key})
	}
	if len(all) > 0 && !beside {
		all = append(all, withoutTitles(self))
	}
	return all
}

// withoutTitles keeps the kernel from making PROCTITLE records, of which nothing is read: one
// in seven of an exec's, one in four of a connect's, each a look into the caller's memory. It
// holds for whatever rules there are, so only where nobody else owns audit. Such a rule takes
// no key (audit_filter in kernel/auditfilter.c knows none); the process says whose it is.
func withoutTitles(self uint32) rule {
	return rule{what: "leaving out PROCTITLE", list: listExclude, action: actNever,
		fields: []field{{onPID, notEqual, self, ""}, {onMsgType, equal, typeProctitle, ""}}}
}

// ours reports whether a goshawk made the rule, and which process that was: each of its rules
// leaves out the process that added it.
func (l *loaded) ours() (pid uint32, marked, ok bool) {
	f, has := l.one(onPID)
	marked = has && f.op == notEqual
	if l.list == listExclude {
		t, is := l.one(onMsgType)
		ok = marked && is && t == field{onMsgType, equal, typeProctitle, ""} && len(l.fields) == 2 && l.action == actNever
		return f.value, marked, ok
	}
	return f.value, marked, l.key() == Key
}

// but are the conditions that leave out this process, and users and executables. The first
// also says, as long as a rule stands, whose it is.
func (o *Options) but(self uint32) []field {
	out := []field{{onPID, notEqual, self, ""}}
	for _, uid := range o.ExcludeUIDs {
		out = append(out, field{onUID, notEqual, uid, ""})
	}
	if !o.exesByRule {
		for _, exe := range o.ExcludeExes {
			out = append(out, field{onExe, notEqual, 0, exe})
		}
	}
	return out
}

// exclusions are the rules that leave out what a condition cannot.
func (o *Options) exclusions(rules []rule, list uint32, but []field) []rule {
	var m mask
	for i := range rules {
		if !rules[i].watch() {
			m.join(&rules[i].mask)
		}
	}
	if m == (mask{}) {
		return nil
	}
	var out []rule
	if o.exesByRule {
		for _, exe := range o.ExcludeExes {
			out = append(out, rule{what: "leaving out " + exe, fields: []field{{onExe, equal, 0, exe}}})
		}
	}
	for _, dir := range o.ExcludeDirs {
		out = append(out, rule{what: "leaving out " + dir, fields: []field{{onDir, equal, 0, filepath.Clean(dir)}}})
	}
	for i := range out {
		out[i].list, out[i].action, out[i].mask = list, actNever, m
		out[i].fields = append(out[i].fields, but...)
	}
	return out
}

// rule makes the rule of a watch. The kernel looks up rules on one file by its inode, which
// costs other calls nothing. A rule on a directory stands in the list.
func (w *Watch) rule() rule {
	perm := w.Perm
	if perm == 0 {
		perm = PermWrite | PermAttr
	}
	path := filepath.Clean(w.Path)
	r := rule{what: "file " + path, list: listExit, action: actAlways,
		fields: []field{{onPerm, equal, uint32(perm & permAll), ""}}}
	if !w.Dir {
		r.mask = everything()
		r.fields = append(r.fields, field{onWatch, equal, 0, path})
		return r
	}
	r.fields = append(r.fields, field{onDir, equal, 0, path})
	if perm&(PermRead|PermExec) != 0 {
		r.mask = everything()
		return r
	}
	for _, a := range abis {
		m := a.mask(fileCalls)
		r.mask.join(&m)
	}
	return r
}

func everything() (m mask) {
	// The last word has no calls but classes of them (AUDIT_SYSCALL_CLASSES).
	for i := range m[:maskWords-1] {
		m[i] = ^uint32(0)
	}
	return m
}

// watch reports whether the rule is on one file.
func (r *rule) watch() bool {
	return slices.ContainsFunc(r.fields, func(f field) bool { return f.on == onWatch })
}

func (c *call) number(a abi) int16 { return a.of(c) }

func (a abi) mask(names []string) (m mask) {
	for _, name := range names {
		if n := callNamed(name).number(a); n >= 0 {
			m.add(int(n))
		}
	}
	return m
}

func ringMask(names []string) (m mask) {
	for _, name := range names {
		for _, o := range ringOps {
			if o.name == name {
				m.add(int(o.op))
			}
		}
	}
	return m
}

// loaded is what we read of a rule in the kernel that may not be ours.
type loaded struct {
	list, action uint32
	mask         mask
	fields       []field
}

// parseRule reads a struct audit_rule_data. It reports false for what is none.
func parseRule(b []byte) (loaded, bool) {
	var l loaded
	if len(b) < ruleHead {
		return l, false
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	l.list, l.action = word(0)&^prepend, word(1)
	n, text := int(word(2)), b[ruleHead:]
	if n > maxFields {
		return l, false
	}
	for i := range l.mask {
		l.mask[i] = word(3 + i)
	}
	for i := range n {
		f := field{on: word(3 + maskWords + i), value: word(3 + maskWords + maxFields + i),
			op: word(3 + maskWords + 2*maxFields + i)}
		if hasText(f.on) {
			if uint64(f.value) > uint64(len(text)) {
				return l, false
			}
			f.text, text = string(text[:f.value]), text[f.value:]
			f.value = 0
		}
		l.fields = append(l.fields, f)
	}
	return l, true
}

// hasText reports whether a condition is on a string (audit_data_to_entry).
func hasText(on uint32) bool {
	switch on {
	case onWatch, onDir, onExe, onKey:
		return true
	}
	return on >= 13 && on <= 17 || on >= 19 && on <= 23 // SUBJ_*, OBJ_*
}

// key returns the rule's key, "" when it has none.
func (l *loaded) key() string {
	for i := range l.fields {
		if l.fields[i].on == onKey {
			return l.fields[i].text
		}
	}
	return ""
}

// one returns the rule's first condition on this.
func (l *loaded) one(on uint32) (field, bool) {
	i := slices.IndexFunc(l.fields, func(f field) bool { return f.on == on })
	if i < 0 {
		return field{}, false
	}
	return l.fields[i], true
}
