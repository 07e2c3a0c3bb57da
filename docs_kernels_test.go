package goshawk

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kernelsFile is what `make test-kernels UPDATE=1` found.
const kernelsFile = "kerneltest/testdata/kernels.json"

// testedKernel is a kernel and what it grants (kerneltest's record).
type testedKernel struct {
	Name, Release, Arch string
	Tiers               []struct {
		Object  string
		Hook    string
		Kinds   []string
		Tier    string
		Refused string
	}
	Skipped []struct{ Test, Reason string }
}

// title is the head of the kernel's column.
func (k *testedKernel) title() string {
	title := regexp.MustCompile(`^\d+\.\d+`).FindString(k.Release)
	if k.Arch != "amd64" {
		title += " " + k.Arch
	}
	if k.Name == "host" {
		title += " (a)"
	}
	return title
}

// tierNotes says of each tier how it observes, and what it cannot.
var tierNotes = []struct{ tier, how, lost string }{
	{"tp_btf", "tracepoint of the kernel with typed arguments", "nothing"},
	{"raw_tp", "the same tracepoint, its arguments read one by one", "nothing"},
	{"fexit", "return (or entry) of a kernel function below the system call: calls of either width and io_uring's, with the kernel's copy of the address", "nothing"},
	{"fentry", "entry of a kernel function", "nothing"},
	{"kprobe", "the same functions by kprobe and kretprobe, which cost more a call", "calls beyond those that a kretprobe has room for at a time"},
	{"kprobe_late", "as kprobe, of an exec that is done; for kernels before 4.15, where a tracepoint takes one program on the whole machine", "arguments as they were before a tracer had its turn"},
	{"kprobe_plain", "as kprobe, of the functions behind system calls before 4.17, which are given the arguments themselves", "as kprobe"},
	{"tracepoint", "exit of the system call; every system call pays for it", "of 32-bit programs, accept, unix sockets and what they are refused (the rest by hooks beside: bpf/way.bpf.h); of io_uring, a further accept by one request, and before 5.19 all but TCP; an address that another thread has changed meanwhile is told as changed"},
	{"tracepoint_pair", "entry and exit of the system call; every system call pays for both", "as tracepoint"},
	{"fanotify", "marks on file systems", "who did it beyond the process, which attribute was changed, failures; see [file-integrity.md](file-integrity.md)"},
	{"cgroup", "programs on the root of cgroup v2", "all, where no cgroup2 can be mounted"},
}

func kernelsReference(t *testing.T, data string) string {
	var kernels []testedKernel
	if err := json.Unmarshal([]byte(data), &kernels); err != nil {
		t.Fatal(err)
	}
	type tierOf struct{ hook, tier string }
	var hooks []string             // in their order
	var tiers []tierOf             // in their order
	kinds := map[string]string{}   // of a hook
	refused := map[string]string{} // kernel, hook and tier → why; "" is granted
	key := func(k *testedKernel, x tierOf) string { return k.Name + " " + x.hook + " " + x.tier }
	for i := range kernels {
		for _, x := range kernels[i].Tiers {
			if x.Object == "legacy" {
				x.Hook = "legacy " + x.Hook
			}
			at := tierOf{x.Hook, x.Tier}
			if !slices.Contains(hooks, x.Hook) {
				hooks = append(hooks, x.Hook)
			}
			if !slices.Contains(tiers, at) {
				tiers = append(tiers, at)
			}
			kinds[x.Hook] = strings.Join(x.Kinds, ", ")
			refused[key(&kernels[i], at)] = x.Refused
		}
	}
	var b strings.Builder
	b.WriteString(strings.Replace(notice, "by `make docs`", "by `make docs` from "+kernelsFile, 1))
	b.WriteString(kernelsIntro)
	head := func(first string) {
		b.WriteString("| " + first + " |")
		for i := range kernels {
			b.WriteString(" " + kernels[i].title() + " |")
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(kernels)) + "\n")
	}
	head("hook (kinds)")
	for _, h := range hooks {
		fmt.Fprintf(&b, "| %s (%s) |", h, kinds[h])
		for i := range kernels {
			used := "**none**"
			first := true
			for _, x := range tiers {
				if x.hook != h {
					continue
				}
				if why, ok := refused[key(&kernels[i], x)]; ok && why == "" {
					used = x.tier
					if !first {
						used = "*" + used + "*"
					}
					break
				}
				first = false
			}
			b.WriteString(" " + used + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\nThe kernels, as they name themselves:\n\n")
	for i := range kernels {
		fmt.Fprintf(&b, "- %s: `%s`, %s\n", kernels[i].title(), kernels[i].Release, kernels[i].Arch)
	}
	b.WriteString(kernelsHost)
	b.WriteString("\n## Every way to attach\n\nEach hook can be forced to one of its tiers with `--tier HOOK=TIER`. A number stands for the\nreason below.\n\n")
	var reasons []string
	head("hook = tier")
	for _, x := range tiers {
		fmt.Fprintf(&b, "| %s=%s |", x.hook, x.tier)
		for i := range kernels {
			why, ok := refused[key(&kernels[i], x)]
			switch {
			case !ok:
				b.WriteString(" |")
			case why == "":
				b.WriteString(" yes |")
			default:
				why = brief(why)
				n := slices.Index(reasons, why)
				if n < 0 {
					n = len(reasons)
					reasons = append(reasons, why)
				}
				fmt.Fprintf(&b, " %d |", n+1)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, r := range reasons {
		fmt.Fprintf(&b, "%d. `%s`\n", i+1, r)
	}
	b.WriteString("\n## What is lost where\n\n| tier | how it observes | what it cannot see |\n|---|---|---|\n")
	for _, x := range tiers {
		if !slices.ContainsFunc(tierNotes, func(n struct{ tier, how, lost string }) bool { return n.tier == x.tier }) {
			t.Errorf("tier %s is not in tierNotes: say there what it cannot see", x.tier)
		}
	}
	for _, n := range tierNotes {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n.tier, n.how, n.lost)
	}
	b.WriteString(kernelsLSM)
	b.WriteString(kernelsBTF)
	b.WriteString(kernelsOld)
	b.WriteString("\n## What was not tried\n\nWhat these kernels lack altogether, so that its tests do not run there:\n\n")
	lacks := map[string][]string{} // by reason
	var order []string
	for i := range kernels {
		for _, s := range kernels[i].Skipped {
			if lacks[s.Reason] == nil {
				order = append(order, s.Reason)
			}
			if !slices.Contains(lacks[s.Reason], kernels[i].title()) {
				lacks[s.Reason] = append(lacks[s.Reason], kernels[i].title())
			}
		}
	}
	slices.Sort(order)
	for _, r := range order {
		fmt.Fprintf(&b, "- %s: %s\n", strings.Join(lacks[r], ", "), r)
	}
	if len(order) == 0 {
		b.WriteString("- nothing\n")
	}
	return b.String()
}

var loadOf = regexp.MustCompile(`^load: program \w+: `)

// brief leaves out what differs from program to program.
func brief(why string) string {
	return strings.ReplaceAll(loadOf.ReplaceAllString(why, ""), "`", "'")
}

const kernelsIntro = `# Kernels

` + "`make test-kernels`" + ` boots Debian's stock kernels under QEMU and runs the live tests in each: what
happens there is compared with what Goshawk tells of it, at every tier that the kernel grants, with rings of
one page, and with nothing but proc, sysfs, devtmpfs and debugfs mounted. ` + "`goshawk check`" + ` says the same
of your kernel.

Which tier each hook gets, best first; in *italics* where it is not the best one.

`

const kernelsLSM = `
There is no tier of LSM programs for sockets. One stands on the same trampoline as fexit, so that it is refused
where fexit is, and needs bpf in the list of security modules besides; it is called before the kernel
acts, and knows neither the outcome nor the port that the kernel chooses. What it would add, a call that another
security module forbids, the fexit programs on security_socket_connect(), _accept(), _bind() and _listen() tell.

io_uring, system calls of 32 bits and x32, and an address that is changed while the kernel looks at it are tried at
each tier, in the guests (TestLiveWays, TestLiveHeldAddress: a page that is missing holds the kernel's copy
while another thread changes what was copied).
`

const kernelsBTF = `
## Kernels without BTF

Where /sys/kernel/btf/vmlinux is missing (before 5.2, or built without CONFIG_DEBUG_INFO_BTF) goshawk needs a file
with the types of that very build: ` + "`--btf FILE`" + `, as ` + "`pahole --btf_encode_detached`" + ` makes it from the vmlinux of a
debuginfo package, or as BTFHub's archive has it for many kernels of CentOS, RHEL, Oracle Linux, Amazon
Linux, Debian and Ubuntu. Of that archive

` + "```sh" + `
make btf ARCHIVE=../btfhub-archive/centos/7 OUT=btf.tar.gz ARGS="-match '3.10.0-*'"
` + "```" + `

packs what the BPF programs need, some 10 KB of 5 MB a kernel. ` + "`--btf`" + ` takes that archive, a directory
of RELEASE.btf files (or MACHINE/RELEASE.btf), or one file, whatever its name, whole or reduced. Without
it goshawk looks for its kernel's in /etc/goshawk/btf/ and /etc/goshawk/btf.tar.gz, and in btf/ and
btf.tar.gz beside the program. Nothing tells whether a file is of this build: with another's, what
events say is wrong where structures differ.
`

const kernelsOld = `
## Kernels before 5.10, and 3.10 of RHEL 7.6 to 7.9

None of them can be had where these tests run. The legacy object is for them: the same sources, with perf
buffers, no loops and calls, at most 4096 instructions a program, and no helper or type of map that
3.10.0-1160, 4.14 or 4.19 lacks. What is proved of it:

- its instructions, helpers, maps and relocations, read from the object (TestLegacyLimits);
- that a model of the verifiers of 3.10 (RHEL 7), 4.14 and 4.19, made from their sources, takes every program with the
  structures of these kernels (TestLegacyOldKernels);
- all live tests, at each of its tiers, on 5.10 and 6.1 (the guests 5.10-legacy and 6.1-legacy);
- ` + "`check --self-test`, `run` and `query`" + ` on 5.10 with what 3.10 lacks taken away (` + "`make test-kernels K=5.10 RUN=old`" + `): every
  system call after 3.10's, all commands of bpf(2), types of programs and maps, instructions and helpers that
  RHEL 7 has not, the kernel's BTF, tracefs, the PMU for kprobes, cgroup2, and the tracepoints of sockets, cgroups and
  system calls; with nothing but proc, sysfs, devtmpfs and debugfs mounted and types from ` + "`--btf`" + `.

What only such a kernel can show, and nobody has seen: its verifier itself; that its compiler left tcp_set_state
and the other functions of the kprobes whole (all are global or called by pointer in RHEL 7's sources);
that a tracepoint shared with another tool is told as taken (before 4.15 it takes one program; goshawk then
uses kprobes alone). In a virtual machine without virtio-rng, random numbers keep a program waiting until
the kernel has gathered enough: minutes after boot.

What goshawk cannot tell there: cgroups as they are made (their tracepoints tell a usable number since 5.5; processes
name theirs all the same), socket cookies (4.2), the loss of a close that a program of another tool was in the way of; kind
syscall, namespaces made by clone(2), and files but by fanotify, for which the legacy object has no programs.
`

const kernelsHost = `
(a) A virtual machine whose kernel was built without kprobes and refuses trampolines (fentry, fexit, LSM
programs) to everybody: what a hardened host may look like.
`

// instructionsFile is what `make test-kernels K=instructions UPDATE=1` found.
const instructionsFile = "kerneltest/testdata/instructions.json"

// instructionCosts are the tables of what QEMU counted: of processes and connections for
// docs/performance.md, and of files for docs/file-integrity.md.
func instructionCosts(t *testing.T, data string) (performance, files string) {
	var found struct {
		Kernel string
		Costs  []struct {
			Side, What string
			Least      float64
		}
	}
	if err := json.Unmarshal([]byte(data), &found); err != nil {
		t.Fatal(err)
	}
	least := map[string]float64{}
	for _, c := range found.Costs {
		least[c.Side+" "+c.What] = c.Least
	}
	table := func(format string, sides []string, rows [][2]string) string {
		var b strings.Builder
		b.WriteString("| |")
		for _, s := range sides {
			b.WriteString(" " + s + " |")
		}
		b.WriteString("\n|---|" + strings.Repeat("---:|", len(sides)) + "\n")
		for _, w := range rows {
			b.WriteString("| " + w[1] + " |")
			bare := least["bare "+w[0]]
			for _, s := range sides {
				n, ok := least[s+" "+w[0]]
				if !ok || bare == 0 {
					t.Errorf("%s has no %s of side %s", instructionsFile, w[0], s)
					continue
				}
				fmt.Fprintf(&b, " %.0f", n)
				if s != "bare" {
					fmt.Fprintf(&b, format, 100*(n/bare-1))
				}
				b.WriteString(" |")
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	return fmt.Sprintf(instructionsIntro, found.Kernel) + table(" (%+.1f %%)",
			[]string{"bare", "goshawk", "goshawk-processes", "goshawk-kprobe", "goshawk-tracepoint"},
			[][2]string{{"getpid", "getpid, which nobody watches"}, {"process", "a process started and ended"},
				{"connection", "a loopback connection (connect, accept, both closes)"}}),
		fmt.Sprintf(fileCostsIntro, found.Kernel) + table(" (%+.2f %%)",
			[]string{"bare", "files-fexit", "files-kprobe", "files-fanotify"},
			[][2]string{{"build", "`gcc -O1 -c` of a program"}, {"change", "a file made, written to, closed, renamed, deleted"}, {"read", "a file opened, read, closed"}})
}

// within puts text between two lines of a document.
func within(t *testing.T, document, begin, text, end string) string {
	before, rest, ok := strings.Cut(document, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Errorf("the line %q or %q is gone", begin, end)
		return document
	}
	return before + begin + text + end + after
}

const (
	instructionsBegin = "<!-- instructions: by `make docs` -->\n"
	instructionsEnd   = "<!-- end of instructions -->\n"
)

const fileCostsIntro = `
In instructions of a guest with Debian's kernel %s, as ` + "`make test-kernels K=instructions`" + ` counts them (see
[performance.md](performance.md)): ` + "`goshawk run --kinds file --watch '/watched/%%%%'`" + ` at each tier, work in another
directory of the same file system, six deep, which nobody watches. The least of 400 tries, of the compiler's runs of three.
At ` + "`fanotify`" + ` the compiler's runs have the agent's own work in them: it is told of each change, and throws it away.

`

const instructionsIntro = `
## Counted in instructions

` + "`make test-kernels K=instructions`" + ` repeats this: QEMU counts the instructions of a guest with Debian's
kernel %s (` + "`-icount shift=0`" + `), so the figures are the same in every run and on every machine. The
least of 400 tries is told: what no timer, and none of the agent's own work, has come between. *goshawk*
is ` + "`goshawk run`" + ` with all kinds at the best tiers (tp_btf, fexit), *goshawk-processes* the same with
` + "`--kinds exec,fork,exit`" + `, *goshawk-kprobe* with the calls on sockets watched by kprobes, *goshawk-tracepoint* with the calls on sockets watched at their system calls,
as where a kernel grants neither fexit nor kprobes.

`
