package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Options say what to see and how to get on with whoever else uses audit.
type Options struct {
	Kinds   []event.ID // nil: all. Forks are told as often as anything else: two records each
	Watches []Watch    // files whose changes are told, when KindFile is wanted
	// What is left out in the kernel, and costs no record: the deeds of these users, of
	// these executables, and on files below these directories. This process always is.
	ExcludeUIDs []uint32
	ExcludeExes []string
	ExcludeDirs []string
	NoRing      bool // leave io_uring alone
	NullAccepts bool // tell of accepts for which nobody waited (EAGAIN), too
	// OmitModules are security modules whose decisions are not told, as event.Policy names
	// them: selinux, apparmor, seccomp …
	OmitModules []string
	exesByRule  bool // the kernel has no condition for them (before 4.18)

	StopOwner bool // end the process that owns audit (auditd) and take its place
	WithOwner bool // add rules although there is an owner, which gets their records too
	ReadOnly  bool // change nothing of the kernel's: no rules, no settings, no owner
	Yielding  bool // what another process takes, audit or our rules, is never taken again
	// Replace takes out all rules that are there at the start, and puts them back at the end.
	Replace bool
	// Clear takes out all rules that are there at the end, whoever's they are.
	Clear bool

	Backlog uint32             // records that may wait in the kernel, when audit is ours; 0: 8,192
	Receive int                // bytes of room in the socket; 0: 32 MiB
	Rates   map[string]float64 // events a second by hook, or "other"; 0 is no limit. Missing: 4,000

	StateDir string // where the journal is kept
	BootID   string
	FS       procfs.FS
	// Tell takes a line for the operator: what is not seen and why, what was put back. It is
	// called by Open and by the goroutine of Run. Nil: nobody listens.
	Tell func(string)
}

const (
	defaultBacklog = 8192
	// defaultReceive is so much that a storm of 100,000 records a second, which begins while
	// records gather, fills less than what sheds any. The kernel doubles it, and takes only
	// what is used.
	defaultReceive = 32 << 20
)

// maxRate is above what any kernel can tell.
const maxRate = 1e9

// HookNames lists the groups of rules, which Options.Rates bounds by name, and "other": what
// the rules of others tell.
func HookNames() []string {
	var names []string
	for i := range groups {
		names = append(names, groups[i].name)
	}
	return append(names, "other")
}

// maxExcluded is how many users and executables can be left out: each is a condition of
// every rule, of which the kernel takes 64.
const maxExcluded = maxFields - 8

// Check finds what cannot be, before Open touches anything.
func (o *Options) Check() error {
	if o.ReadOnly && (o.StopOwner || o.WithOwner || o.Replace || o.Clear) {
		return errors.New("use audit: rules and the owner cannot be changed where nothing may be")
	}
	for name, rate := range o.Rates {
		if name != "other" && !slices.ContainsFunc(groups, func(g group) bool { return g.name == name }) {
			return fmt.Errorf("limit the rate of %q: there is no such hook; hooks are %s", name, strings.Join(HookNames(), ", "))
		}
		if !(rate >= 0 && rate <= maxRate) {
			return fmt.Errorf("limit the rate of %q to %v events a second: use 0 (no limit) to %d", name, rate, int(maxRate))
		}
	}
	if n := len(o.ExcludeUIDs) + len(o.ExcludeExes); n > maxExcluded {
		return fmt.Errorf("leave out %d users and executables: audit takes %d at most", n, maxExcluded)
	}
	paths := slices.Concat(o.ExcludeExes, o.ExcludeDirs)
	for _, w := range o.Watches {
		paths = append(paths, w.Path)
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || len(p) >= maxPath || strings.ContainsRune(p, 0) {
			return fmt.Errorf("make an audit rule for %q: the path must be absolute and shorter than %d bytes", p, maxPath)
		}
	}
	return nil
}
