package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/goshawk-project/goshawk/internal/audit"
)

// text prints the report for people. Words of other programs are made safe to show.
func (r *report) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, state, note string) { fmt.Fprintf(t, "  %s\t%s\t%s\n", name, state, safe(note)) }
	fmt.Fprintln(t, "KERNEL\t\t")
	for _, k := range r.Kernel {
		note := k.Value
		if k.Advice != "" {
			note += ": " + k.Advice
		}
		line(k.Name, string(k.State), note)
	}
	if len(r.Hooks) > 0 {
		fmt.Fprintln(t, "HOOKS\t\t")
	}
	for _, h := range r.Hooks {
		tier := h.Tier
		if tier == "" {
			tier = "none"
		}
		note := strings.Join(h.Kinds, ", ")
		if h.Refused != "" {
			note += " (" + h.Refused + ")"
		}
		line(h.Name, tier, note)
	}
	if r.Files != nil {
		fmt.Fprintln(t, "FILES\t\t")
		for _, s := range r.Files.Systems {
			line("not watched", "", s)
		}
		for _, s := range r.Files.Deeds {
			line("not told", "", s)
		}
	}
	if len(r.Rings) > 0 {
		fmt.Fprintln(t, "RINGS\t\t")
	}
	for _, g := range r.Rings {
		line(g.Name, fmt.Sprintf("%d KiB", g.Bytes>>10), "")
	}
	fmt.Fprintln(t, "AUDIT\t\t")
	a := &r.Audit
	state := "disabled"
	if a.Enabled {
		state = "enabled"
	}
	switch a.Case {
	case audit.CaseNone:
		line("use", "none", strings.Join(a.Advice, "; "))
	default:
		line("use", string(a.Case), a.Advice[0])
		for _, advice := range a.Advice[1:] {
			line("", "", advice)
		}
	}
	if a.Failure != "" { // the kernel has answered
		line("state", state, "")
		line("rules", fmt.Sprint(a.Rules), "")
		line("backlog", fmt.Sprint(a.Backlog), fmt.Sprintf("of %d", a.BacklogLimit))
		line("lost", fmt.Sprint(a.Lost), "since boot")
		line("failure", a.Failure, "")
	}
	fmt.Fprintln(t, "CONTAINERS\t\t")
	for _, c := range r.Runtimes {
		line(c.Name, "found", c.Socket)
	}
	if len(r.Runtimes) == 0 {
		line("runtimes", "none", "no socket of Docker, containerd, CRI-O or Podman")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.SelfTest != nil {
		if err := r.SelfTest.text(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, safe(r.Result))
	return err
}
