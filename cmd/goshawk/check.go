package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

func newCheck() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "See what this kernel allows",
		Long: `See what this kernel allows: what it offers, and for each hook (a place in the kernel
where events are observed) how it would be attached, or why it cannot be. Hooks are
proved by attaching them for a moment. Nothing is kept, and a running agent is not
disturbed.`,
		Example: `  goshawk check
  goshawk check --format json | jq .hooks`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitUnsupported, exitPrivilege),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return failf(exitUsage, "no format is called %q; formats are text, json", format)
			}
			f := procfs.At("")
			r := report{Kernel: kernel.Probe(f)}
			code := r.tryHooks(f)
			print := r.text
			if format == "json" {
				print = func(w io.Writer) error { return printJSON(w, r) }
			}
			if err := print(cmd.OutOrStdout()); err != nil {
				return failed(err)
			}
			if code != exitOK {
				return &exitError{code: code}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "how to print: text or json")
	return cmd
}

// report is what check finds.
type report struct {
	Kernel []kernel.Fact `json:"kernel"`
	Hooks  []hookText    `json:"hooks"`
	Source string        `json:"source"` // that run would choose, empty when none works
	Result string        `json:"result"`
}

type hookText struct {
	Source  string   `json:"source"`
	Name    string   `json:"name"`
	Kinds   []string `json:"kinds"`
	Tier    string   `json:"tier"`
	Best    bool     `json:"best"`
	Refused string   `json:"refused,omitempty"`
}

// tryHooks attaches every hook for a moment and returns the exit code.
func (r *report) tryHooks(f procfs.FS) int {
	r.Hooks = []hookText{}
	s, err := sensor.Open(sensor.Options{FS: f})
	var hooks []event.Hook
	var unsupported *sensor.Unsupported
	switch {
	case err == nil:
		hooks = s.Hooks()
		err = s.Close()
	case errors.As(err, &unsupported):
		hooks = unsupported.Hooks
	}
	works := 0
	var idle []string
	for i := range hooks {
		h := &hooks[i]
		r.Hooks = append(r.Hooks, textOf(h))
		if h.Tier != "" {
			works++
		} else {
			idle = append(idle, h.Name)
		}
	}
	switch {
	case works > 0 && len(idle) == 0:
		r.Source = "ebpf"
		r.Result = fmt.Sprintf("all %d hooks work: goshawk run observes everything it knows", works)
		return exitOK
	case works > 0:
		r.Source = "ebpf"
		r.Result = fmt.Sprintf("%d of %d hooks work: goshawk run goes without %s", works, len(hooks), strings.Join(idle, ", "))
		return exitOK
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		r.Result = "nothing can be attached by this user: run goshawk check as root"
		return exitPrivilege
	case err == nil:
		r.Result = "no hook is known"
	default:
		r.Result = "no source works on this kernel: " + oneLine(err)
		for _, k := range r.Kernel {
			if k.State == kernel.Missing {
				r.Result += "; " + k.Advice
			}
		}
	}
	return exitUnsupported
}

func (r *report) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KERNEL\t\t")
	for _, k := range r.Kernel {
		value := k.Value
		if k.Advice != "" {
			value += ": " + k.Advice
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", k.Name, k.State, value)
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
		fmt.Fprintf(t, "  %s\t%s\t%s\n", h.Name, tier, note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.Result)
	return err
}
