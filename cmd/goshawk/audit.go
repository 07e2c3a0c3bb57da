package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/event"
)

// auditing are the flags about the audit subsystem. Those of osquery keep its names. What
// they allow is allowed unless one says otherwise: whoever asks for audit wants what it tells.
type auditing struct {
	stopOwner, withOwner bool
	disabled             bool

	config, persist          bool
	reconfigure, unconfigure bool
	backlog                  uint32
	allow                    [len(auditAllows)]bool
	nullAccepts              bool

	withoutExes, withoutDirs, withoutUIDs, rates []string
}

// auditAllow is a flag of osquery's that stands for kinds of event, or for what a security
// module decides.
type auditAllow struct {
	flag   string
	kinds  []event.ID
	module string
	usage  string
}

var auditAllows = [...]auditAllow{
	{"audit_allow_process_events", []event.ID{event.KindExec, event.KindFork, event.KindExit}, "", "programs started, and processes made and ended"},
	{"audit_allow_fork_process_events", []event.ID{event.KindFork}, "", "processes made"},
	{"audit_allow_kill_process_events", []event.ID{event.KindSignal}, "", "signals sent"},
	{"audit_allow_sockets", []event.ID{event.KindConnect, event.KindAccept, event.KindBind, event.KindListen}, "", "connect, accept, bind and listen"},
	{"audit_allow_accept_socket_events", []event.ID{event.KindAccept}, "", "accept"},
	{"audit_allow_user_events", []event.ID{event.KindUser}, "", "logins and the like, as programs report them"},
	{"audit_allow_fim_events", []event.ID{event.KindFile}, "", "what is done to files that are watched"},
	{"audit_allow_selinux_events", nil, "selinux", "decisions of SELinux"},
	{"audit_allow_apparmor_events", nil, "apparmor", "decisions of AppArmor"},
	{"audit_allow_seccomp_events", nil, "seccomp", "decisions of seccomp filters"},
}

func (a *auditing) flags(f *pflag.FlagSet) {
	f.BoolVar(&a.stopOwner, "stop-auditd", false, "end the process that owns audit, and take its place")
	f.BoolVar(&a.withOwner, "audit-with-auditd", false, "add rules although audit has an owner, which gets their records too")
	f.StringArrayVar(&a.withoutExes, "audit-exclude-exe", nil, "let audit tell nothing of what this executable does, by its path (repeat)")
	f.StringArrayVar(&a.withoutDirs, "audit-exclude-dir", nil, "let audit tell nothing of files below this directory (repeat)")
	f.StringSliceVar(&a.withoutUIDs, "audit-exclude-uid", nil, "let audit tell nothing of what these users do, by number, with commas")
	f.StringSliceVar(&a.rates, "audit-rate", nil, "events a second that audit may tell of a hook, as HOOK=N with commas, 0 for no limit (default 4000 each, five times that at once); hooks are "+strings.Join(audit.HookNames(), ", "))
	f.BoolVar(&a.disabled, "disable_audit", false, "leave audit alone")
	f.BoolVar(&a.config, "audit_allow_config", true, "change the kernel's audit: rules, settings, owner; false only reads")
	f.BoolVar(&a.persist, "audit_persist", true, "take audit again when another process took it and left, and add rules again that somebody removed")
	f.BoolVar(&a.reconfigure, "audit_force_reconfigure", false, "take out the rules that are there; they are put back at the end")
	f.BoolVar(&a.unconfigure, "audit_force_unconfigure", false, "take out all rules at the end, also those that were there before")
	f.Uint32Var(&a.backlog, "audit_backlog_limit", 0, "records that the kernel keeps in its queue (default 8192, or what is set if that is more)")
	for i := range auditAllows {
		f.BoolVar(&a.allow[i], auditAllows[i].flag, true, "let audit tell of "+auditAllows[i].usage)
	}
	f.BoolVar(&a.nullAccepts, "audit_allow_null_accept_socket_events", false, "let audit tell of accepts for which nobody waited, too")
}

// auditingOf takes the same flags from the daemon's, which has osquery's defaults: of those
// only what was given counts.
func auditingOf(f *config.Flags) auditing {
	given := func(name string, otherwise bool) bool {
		if f.Given(name) {
			return f.Bool(name)
		}
		return otherwise
	}
	a := auditing{
		stopOwner: f.Bool("stop_auditd"), withOwner: f.Bool("audit_with_auditd"),
		disabled: given("disable_audit", false), config: given("audit_allow_config", true), persist: f.Bool("audit_persist"),
		reconfigure: f.Bool("audit_force_reconfigure"), unconfigure: f.Bool("audit_force_unconfigure"),
		nullAccepts: f.Bool("audit_allow_null_accept_socket_events"),
		withoutExes: split(f.String("audit_exclude_exe")), withoutDirs: split(f.String("audit_exclude_dir")),
		withoutUIDs: words(f.String("audit_exclude_uid")), rates: words(f.String("audit_rate")),
	}
	if f.Given("audit_backlog_limit") {
		a.backlog = uint32(min(max(0, f.Int("audit_backlog_limit")), 1<<31))
	}
	for i := range auditAllows {
		a.allow[i] = given(auditAllows[i].flag, true)
	}
	return a
}

// split splits a list of paths with commas.
func split(list string) (out []string) {
	for _, s := range strings.Split(list, ",") {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// check finds wrong usage, given what --source says.
func (a *auditing) check(source string) error {
	switch {
	case (source == "ebpf" || a.disabled) && (a.stopOwner || a.withOwner):
		return failf(exitUsage, "--stop-auditd, --audit-with-auditd: audit is not used with --source ebpf, nor with --disable_audit")
	case a.stopOwner && a.withOwner:
		return failf(exitUsage, "--stop-auditd and --audit-with-auditd exclude each other")
	case source == "audit" && a.disabled:
		return failf(exitUsage, "--disable_audit: --source audit asks for audit")
	case !a.config && (a.stopOwner || a.withOwner || a.reconfigure || a.unconfigure):
		return failf(exitUsage, "--audit_allow_config=false: --stop-auditd, --audit-with-auditd, --audit_force_reconfigure and --audit_force_unconfigure change audit's configuration")
	}
	o, err := a.options()
	if err == nil {
		err = o.Check()
	}
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}

// options are what the flags mean to the source.
func (a *auditing) options() (audit.Options, error) {
	o := audit.Options{
		StopOwner: a.stopOwner, WithOwner: a.withOwner, ReadOnly: !a.config, Yielding: !a.persist, Replace: a.reconfigure, Clear: a.unconfigure,
		Backlog: a.backlog, ExcludeExes: a.withoutExes, ExcludeDirs: a.withoutDirs, NullAccepts: a.nullAccepts,
	}
	for _, text := range a.withoutUIDs {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return o, fmt.Errorf("--audit-exclude-uid: %q is no number of a user; id -u NAME tells it", text)
		}
		o.ExcludeUIDs = append(o.ExcludeUIDs, uint32(uid))
	}
	for _, text := range a.rates {
		hook, number, ok := strings.Cut(text, "=")
		rate, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil {
			return o, fmt.Errorf("--audit-rate: %q is not HOOK=N, as exec=1000", text)
		}
		if o.Rates == nil {
			o.Rates = map[string]float64{}
		}
		o.Rates[hook] = rate
	}
	for i := range auditAllows {
		if m := auditAllows[i].module; m != "" && !a.allow[i] {
			o.OmitModules = append(o.OmitModules, m)
		}
	}
	return o, nil
}

// allowed leaves out the kinds that a flag denies.
func (a *auditing) allowed(kinds []event.ID) []event.ID {
	if a.disabled {
		return nil
	}
	modules := 0
	for i := range auditAllows {
		if auditAllows[i].module != "" && a.allow[i] {
			modules++
		}
	}
	return slices.DeleteFunc(kinds, func(k event.ID) bool {
		for i := range auditAllows {
			if !a.allow[i] && slices.Contains(auditAllows[i].kinds, k) {
				return true
			}
		}
		return k == event.KindPolicy && modules == 0
	})
}
