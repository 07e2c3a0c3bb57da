package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/event"
)

// printSummary says in three lines what a run amounted to.
func printSummary(w io.Writer, s agent.Summary) {
	total := uint64(0)
	kinds := make([]string, 0, len(s.Events))
	for _, k := range s.Events {
		total += k.N
		kinds = append(kinds, fmt.Sprintf("%s %d", k.Kind, k.N))
	}
	list := ""
	if len(kinds) > 0 {
		list = " (" + strings.Join(kinds, ", ") + ")"
	}
	fmt.Fprintf(w, "stopped: %d events%s in %s\n", total, list, seconds(s.Usage.Since))

	if len(s.Losses) == 0 {
		fmt.Fprintln(w, "lost: none")
	} else {
		var lost []string
		for _, c := range s.Losses {
			kind := "unknown"
			if c.Kind != 0 {
				kind = c.Kind.String()
			}
			lost = append(lost, fmt.Sprintf("%s %d (%s, %s)", kind, c.N, c.Source, c.Reason))
		}
		fmt.Fprintf(w, "lost: %s\n", strings.Join(lost, ", "))
	}

	share := 0.0
	if s.Usage.Since > 0 {
		share = 100 * float64(s.Usage.CPU) / float64(s.Usage.Since)
	}
	fmt.Fprintf(w, "cost: %s of CPU (%.1f %% of a core)", seconds(s.Usage.CPU), share)
	if s.Usage.Peak > 0 {
		fmt.Fprintf(w, ", peak memory %.1f MB", float64(s.Usage.Peak)/1e6)
	}
	fmt.Fprintln(w)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// readyLine says on one line what the agent does now.
func readyLine(source string, hooks []event.Hook, h *host) string {
	works := 0
	var idle []string
	for i := range hooks {
		switch h := &hooks[i]; {
		case h.Tier != "":
			works++
		case !standsIn(hooks, h):
			idle = append(idle, h.Name)
		}
	}
	line := fmt.Sprintf("ready: source=%s hooks=%d", source, works)
	if len(idle) > 0 {
		line += " missing=" + strings.Join(idle, ",")
	}
	return line + " store=" + h.store() + " socket=" + h.socketPath()
}

// standsIn reports whether hooks of other sources tell of all that h would.
func standsIn(hooks []event.Hook, h *event.Hook) bool {
	for _, k := range h.Kinds {
		if !slices.ContainsFunc(hooks, func(o event.Hook) bool {
			return o.Source != h.Source && o.Tier != "" && slices.Contains(o.Kinds, k)
		}) {
			return false
		}
	}
	return len(h.Kinds) > 0
}
