package audit

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/elastic/go-libaudit/v2/auparse"
	libaudit "github.com/elastic/go-libaudit/v2/rule"
	"github.com/elastic/go-libaudit/v2/rule/flags"
	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestConstants compares our numbers with the kernel's header.
func TestConstants(t *testing.T) {
	header, err := os.ReadFile("/usr/include/linux/audit.h")
	if err != nil {
		t.Skip("needs linux/audit.h (Debian's package linux-libc-dev)")
	}
	define := regexp.MustCompile(`(?m)^#define\s+(AUDIT_\w+)\s+(0x[0-9a-fA-F]+|\d+)\b`)
	numbers := map[string]uint32{}
	for _, m := range define.FindAllStringSubmatch(string(header), -1) {
		n, err := strconv.ParseUint(m[2], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[m[1]] = uint32(n)
	}
	for name, ours := range map[string]uint32{
		"GET": msgGet, "SET": msgSet, "ADD_RULE": msgAddRule, "DEL_RULE": msgDelRule, "LIST_RULES": msgListRules,
		"USER": recUser, "LOGIN": recLogin, "FIRST_USER_MSG": recUserFirst, "LAST_USER_MSG": recUserLast,
		"SYSCALL": recSyscall, "CONFIG_CHANGE": recConfig, "EOE": recEOE, "REPLACE": recReplace, "URINGOP": recUringOp,
		"FIRST_USER_MSG2": recUser2, "LAST_USER_MSG2": recUser2Last,
		"STATUS_ENABLED": setEnabled, "STATUS_FAILURE": setFailure, "STATUS_PID": setPID,
		"STATUS_BACKLOG_LIMIT": setBacklog, "STATUS_BACKLOG_WAIT_TIME": setBacklogWait,
		"FEATURE_BITMAP_BACKLOG_WAIT_TIME": featureBacklogWait, "FAIL_PRINTK": failPrintk, "FAIL_PANIC": failPanic,
		"FILTER_TASK": listTask, "FILTER_EXIT": listExit, "FILTER_EXCLUDE": listExclude, "MSGTYPE": onMsgType, "FILTER_URING_EXIT": listRing,
		"NEVER": actNever, "ALWAYS": actAlways,
		"PID": onPID, "UID": onUID, "ARCH": onArch, "EXIT": onExit, "SUCCESS": onSuccess, "WATCH": onWatch,
		"PERM": onPerm, "DIR": onDir, "EXE": onExe, "ARG0": onArg0, "FILTERKEY": onKey,
		"EQUAL": equal, "NOT_EQUAL": notEqual, "FILTER_PREPEND": prepend, "BITMASK_SIZE": maskWords, "MAX_FIELDS": maxFields,
		"PERM_EXEC": uint32(PermExec), "PERM_WRITE": uint32(PermWrite), "PERM_READ": uint32(PermRead), "PERM_ATTR": uint32(PermAttr),
	} {
		if want, ok := numbers["AUDIT_"+name]; !ok || want != ours {
			t.Errorf("AUDIT_%s is %d (in the header: %v), we have %d", name, want, ok, ours)
		}
	}
	for name, c := range map[string][2]uint32{
		"AUDIT_BIT_TEST":              {hasBits, numbers["AUDIT_BIT_MASK"] | numbers["AUDIT_EQUAL"]},
		"AUDIT_LESS_THAN_OR_EQUAL":    {atMost, numbers["AUDIT_LESS_THAN"] | numbers["AUDIT_EQUAL"]},
		"AUDIT_GREATER_THAN_OR_EQUAL": {atLeast, numbers["AUDIT_GREATER_THAN"] | numbers["AUDIT_EQUAL"]},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %#x, we have %#x", name, c[1], c[0])
		}
	}
}

// TestCalls compares our numbers with the tables of another library, made from auditd's.
func TestCalls(t *testing.T) {
	arches := map[string]func(c *call) int16{
		"x86_64": func(c *call) int16 { return c.x86_64 }, "i386": func(c *call) int16 { return c.i386 },
		"aarch64": func(c *call) int16 { return c.aarch64 }, "arm": func(c *call) int16 { return c.arm },
	}
	// Linux 6.13 gave these to every architecture (the library is older), and the ABI of ARM
	// in use has never had the others.
	newer := map[string]int16{"setxattrat": 463, "removexattrat": 466}
	old := map[string]bool{"socketcall": true, "umount": true, "mmap": true}
	for arch, of := range arches {
		numbers := map[string]int16{}
		for n, name := range auparse.AuditSyscalls[arch] {
			numbers[name] = int16(n)
		}
		for i := range calls {
			c := &calls[i]
			want, ok := numbers[c.name]
			switch n, isNew := newer[c.name]; {
			case isNew:
				want = n
			case !ok || arch == "arm" && old[c.name]:
				want = -1
			}
			if got := of(c); got != want {
				t.Errorf("%s of %s is %d, we have %d", c.name, arch, want, got)
			}
		}
	}
	for name, arch := range map[string]uint32{"x86_64": archX86_64, "i386": archI386, "aarch64": archAArch64, "arm": archARM} {
		if auparse.AuditArch(arch).String() != name {
			t.Errorf("%#x is %v, not %s", arch, auparse.AuditArch(arch), name)
		}
	}
	for i := range abis {
		if want := strconv.FormatUint(uint64(abis[i].arch), 16); abis[i].text != want {
			t.Errorf("arch %s is written %q", want, abis[i].text)
		}
	}
}

// TestRingOps compares our numbers with those of the running kernel.
func TestRingOps(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("this kernel has no BTF: %v", err)
	}
	var enum *btf.Enum
	if err := spec.TypeByName("io_uring_op", &enum); err != nil {
		t.Skipf("this kernel has no io_uring: %v", err)
	}
	numbers := map[string]uint64{}
	for _, v := range enum.Values {
		numbers[strings.ToLower(strings.TrimPrefix(v.Name, "IORING_OP_"))] = v.Value
	}
	for _, o := range ringOps {
		if want, ok := numbers[o.name]; ok && want != uint64(o.op) {
			t.Errorf("%s is %d, we have %d", o.name, want, o.op)
		}
	}
	if len(numbers) < 20 {
		t.Errorf("BTF has %d operations", len(numbers))
	}
}

// TestNames sees that every call and operation that a group names is in the tables.
func TestNames(t *testing.T) {
	names := append([]string(nil), fileCalls...)
	var ring []string
	for i := range groups {
		for _, p := range groups[i].parts {
			names = append(names, p.calls...)
		}
		ring = append(ring, groups[i].ring...)
	}
	for _, name := range names {
		if callNamed(name) == nil {
			t.Errorf("no call is named %q", name)
		}
	}
	for _, name := range append(ring, fileRing...) {
		if ringMask([]string{name}) == (mask{}) {
			t.Errorf("no operation of io_uring is named %q", name)
		}
	}
	if len(groups) > 200 || abis == nil {
		t.Error("tables hold indexes of groups in bytes")
	}
}

// TestRuleBytes compares a rule of each sort with what another library makes of it.
func TestRuleBytes(t *testing.T) {
	for _, c := range []struct {
		text string
		ours rule
	}{
		{"-a always,exit -F arch=b64 -S execve -S execveat -F success=1 -F pid!=7 -k goshawk", rule{list: listExit, action: actAlways,
			mask: abis[0].mask([]string{"execve", "execveat"}), fields: []field{{onArch, equal, abis[0].arch, ""},
				{onSuccess, equal, 1, ""}, {onPID, notEqual, 7, ""}, {onKey, equal, 0, Key}}}},
		{"-a never,exit -F arch=b64 -S connect -F exe=/usr/bin/x -k goshawk", rule{list: listExit, action: actNever,
			mask: abis[0].mask([]string{"connect"}), fields: []field{{onArch, equal, abis[0].arch, ""},
				{onExe, equal, 0, "/usr/bin/x"}, {onKey, equal, 0, Key}}}},
		{"-w /etc/passwd -p wa -k goshawk", rule{list: listExit, action: actAlways, mask: everything(),
			fields: []field{{onWatch, equal, 0, "/etc/passwd"}, {onPerm, equal, uint32(PermWrite | PermAttr), ""}, {onKey, equal, 0, Key}}}},
		{"-a always,exit -F arch=b64 -S ptrace -F a0>=4 -F a0<=6 -k goshawk", rule{list: listExit, action: actAlways,
			mask: abis[0].mask([]string{"ptrace"}), fields: []field{{onArch, equal, abis[0].arch, ""}, arg(0, atLeast, 4),
				arg(0, atMost, 6), {onKey, equal, 0, Key}}}},
	} {
		parsed, err := flags.Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		want, err := libaudit.Build(parsed)
		if err != nil {
			t.Fatal(err)
		}
		// The library sets bits of the last word, too; auditctl does not, nor has Linux calls there.
		binary.NativeEndian.PutUint32(want[4*(3+maskWords-1):], 0)
		got := c.ours.append(nil)
		if !bytes.Equal(got, bytes.TrimRight(want, "\x00")) && !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s", c.text, cmp.Diff([]byte(want), got))
		}
		l, ok := parseRule(got)
		if !ok || l.key() != Key || l.list != c.ours.list || l.action != c.ours.action || l.mask != c.ours.mask ||
			cmp.Diff(l.fields, c.ours.fields, cmp.AllowUnexported(field{})) != "" {
			t.Errorf("%s: read back as %+v", c.text, l)
		}
	}
}

// TestPlan sees what is merged, left out, and refused.
func TestPlan(t *testing.T) {
	count := func(rules []rule, group string) (n int) {
		for i := range rules {
			for _, g := range rules[i].groups {
				if groups[g].name == group {
					n++
				}
			}
		}
		return n
	}
	o := Options{Kinds: []event.ID{event.KindExec, event.KindConnect, event.KindBind}, ExcludeUIDs: []uint32{33},
		ExcludeExes: []string{"/usr/bin/x"}, NoRing: true}
	rules := plan(&o, 7, false)
	last := len(rules) - 1
	if r := &rules[last]; r.list != listExclude || len(r.groups) != 0 {
		t.Errorf("the last rule is %+v", r)
	}
	rules = rules[:last]
	// For each ABI exec on success, connect and bind in one; and socketcall twice.
	if len(rules) != 6 || count(rules, "exec") != 2 || count(rules, "connect") != 3 || count(rules, "bind") != 3 || count(rules, "exit") != 0 {
		t.Errorf("%d rules: %+v", len(rules), rules)
	}
	for i := range rules {
		var on []uint32
		for _, f := range rules[i].fields {
			on = append(on, f.on)
			if (f.on == onPID || f.on == onUID || f.on == onExe) && f.op != notEqual {
				t.Errorf("rule %+v leaves nobody out", rules[i])
			}
		}
		if tail := on[len(on)-4:]; !cmp.Equal(tail, []uint32{onPID, onUID, onExe, onKey}) {
			t.Errorf("rule %s ends in conditions on %v", rules[i].what, tail)
		}
	}
	o = Options{Kinds: []event.ID{event.KindFile}, Watches: []Watch{{Path: "/etc/passwd"}, {Path: "/srv/", Dir: true}, {Path: "/bin/su", Perm: PermExec}},
		ExcludeDirs: []string{"/srv/log"}}
	rules = plan(&o, 7, false)
	if len(rules) != 7 { // two that leave out, four that tell, and one about records
		t.Errorf("%d rules: %+v", len(rules), rules)
	}
	if r := &rules[0]; r.action != actNever || r.mask.has(int(callNamed("execve").number(abis[0]))) || !r.mask.has(int(callNamed("unlinkat").number(abis[0]))) {
		t.Errorf("the first rule is %+v", r)
	}
	if forks := plan(&Options{Kinds: []event.ID{event.KindFork}}, 7, false); forks[0].action != actNever || forks[0].what != "threads" {
		t.Errorf("forks: %+v", forks)
	}
	for _, r := range plan(&Options{}, 7, true) {
		if r.action == actNever || r.list == listExclude {
			t.Errorf("beside an owner, rule %s hides something from it", r.what)
		}
	}
	if rules := plan(&Options{Kinds: []event.ID{event.KindUser}}, 7, false); len(rules) != 0 {
		t.Errorf("records of programs need no rule: %+v", rules)
	}
	for _, bad := range []Options{{Watches: []Watch{{Path: "etc"}}}, {ExcludeDirs: []string{"x"}}, {ExcludeExes: []string{"/a\x00b"}},
		{ExcludeUIDs: make([]uint32, maxExcluded+1)}, {Watches: []Watch{{Path: "/" + strings.Repeat("x", maxPath)}}}} {
		if bad.Check() == nil {
			t.Errorf("%+v is no error", bad)
		}
	}
	if most := (Options{ExcludeUIDs: make([]uint32, maxExcluded)}); most.Check() != nil {
		t.Error(most.Check())
	} else {
		for _, r := range plan(&most, 7, false) {
			if len(r.fields) > maxFields {
				t.Errorf("rule %s has %d conditions", r.what, len(r.fields))
			}
			r.append(nil)
		}
	}
}

func TestUnseen(t *testing.T) {
	raw := func(r rule) []byte { return r.append(nil) }
	all := unseen(nil)
	exec := raw(rule{list: listExit, action: actAlways, mask: abis[0].mask([]string{"execve", "execveat"}),
		fields: []field{{onArch, equal, abis[0].arch, ""}, {onKey, equal, 0, "x"}}})
	half := raw(rule{list: listExit, action: actAlways, mask: abis[0].mask([]string{"execve"})})
	ofUser := raw(rule{list: listExit, action: actAlways, mask: abis[0].mask([]string{"bind"}), fields: []field{{onUID, equal, 5, ""}}})
	watch := raw(rule{list: listExit, action: actAlways, mask: everything(), fields: []field{{onWatch, equal, 0, "/x"}}})
	never := raw(rule{list: listTask, action: actNever})
	missing := func(rules ...[]byte) string {
		left := unseen(rules)
		var out []string
		for _, name := range all {
			found := false
			for _, l := range left {
				found = found || l == name
			}
			if !found {
				out = append(out, name)
			}
		}
		return strings.Join(out, ",")
	}
	for _, c := range []struct{ got, want string }{
		{strings.Join(all[:3], ","), "exec,fork,exit"},
		{missing(exec, watch), "exec,file"},
		{missing(half, ofUser), ""},
		{missing(exec, never), ""},
		{missing([]byte("short"), exec), "exec"},
	} {
		if c.got != c.want {
			t.Errorf("told are %q, want %q", c.got, c.want)
		}
	}
}

func FuzzRule(f *testing.F) {
	for _, r := range plan(&Options{Watches: []Watch{{Path: "/etc", Dir: true}}}, 1, false) {
		f.Add(r.append(nil))
	}
	f.Add(make([]byte, ruleHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseRule(b)
		if ok && len(l.fields) > maxFields {
			t.Errorf("%d conditions", len(l.fields))
		}
		l.key()
		unseen([][]byte{b})
	})
}
