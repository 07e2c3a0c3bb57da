package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// selectFiles makes the selection of --watch.
func (o *runOptions) selectFiles() error {
	for _, text := range o.excludeUIDs {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return failf(exitUsage, "--exclude-uid: %q is no number of a user", text)
		}
		o.spared.uids = append(o.spared.uids, uint32(n))
	}
	o.spared.exes, o.spared.containers = o.excludeExes, o.excludeContainers
	if len(o.watch) == 0 {
		if len(o.exclude)+len(o.excludeUIDs)+len(o.excludeExes)+len(o.excludeContainers) > 0 && o.files == nil {
			return failf(exitUsage, "--exclude, --exclude-exe, --exclude-uid, --exclude-container: there is nothing to leave out without --watch")
		}
		return nil
	}
	if len(o.kinds) > 0 && !slices.Contains(o.kinds, event.KindFile.String()) {
		return failf(exitUsage, "--watch: --kinds leaves out kind file")
	}
	set, problems := selection.Compile(selection.Options{
		Watch:   rulesOf(map[string][]string{"watch": o.watch}),
		Exclude: rulesOf(map[string][]string{"watch": o.exclude}), Resolve: selection.Resolve})
	if len(problems) > 0 {
		return failf(exitUsage, "--watch, --exclude: %w", problems[0])
	}
	o.files = set
	return nil
}

// helpers are kinds that are sensed for the sake of others: who did something to a file is
// only a pid to some tiers, which the process table knows by what it was told.
func (o *runOptions) helpers() []event.ID {
	asked := o.kindIDs()
	if o.files == nil || asked == nil {
		return nil
	}
	var out []event.ID
	for _, k := range []event.ID{event.KindExec, event.KindFork, event.KindExit} {
		if !slices.Contains(asked, k) {
			out = append(out, k)
		}
	}
	return out
}

// spared are those whose deeds on files are not told.
type spared struct {
	exes       []string
	uids       []uint32
	containers []string // names, or beginnings of ids
}

func (s *spared) has(e *event.File) bool {
	return slices.Contains(s.uids, e.UID) || slices.Contains(s.exes, e.Path) && e.Path != "" ||
		e.ContainerID != "" && slices.ContainsFunc(s.containers, func(c string) bool {
			return c == e.ContainerName || len(c) >= 4 && strings.HasPrefix(e.ContainerID, c)
		})
}

// ofFiles puts an event on a file under its category, and reports whether it is on a file that
// is watched at all: audit's rules know only what patterns begin with.
func (w *watch) ofFiles(e *event.File) bool {
	if w.spared.has(e) {
		return false
	}
	set := w.files.Load()
	if e.Category != "" || set.Empty() {
		return true
	}
	for _, name := range [...]string{e.TargetPath, e.DestinationPath} {
		if m, ok := set.Match(name); ok {
			e.Category = m.Category
			return true
		}
	}
	// Where the directory is not known, nor is whether it is watched.
	return strings.HasPrefix(e.TargetPath, ".../") || strings.HasPrefix(e.DestinationPath, ".../")
}

// watchFiles puts what a configuration says of files in force.
func (d *daemon) watchFiles(c *config.Config, f *config.Flags) error {
	w := d.watch
	if w.sources == nil {
		return nil
	}
	o := selection.Options{Accesses: c.FileAccesses, Resolve: selection.Resolve}
	if f.Bool("enable_file_events") || f.Bool("audit_allow_fim_events") && !f.Bool("disable_audit") {
		o.Watch, o.Exclude = rulesOf(c.FilePaths), rulesOf(c.ExcludePaths)
		for _, category := range slices.Sorted(maps.Keys(c.FilePathsQuery)) {
			for _, text := range c.FilePathsQuery[category] {
				paths, err := d.paths(text)
				if err != nil {
					d.warn(fmt.Sprintf("file_paths_query %s: %v", category, err))
				}
				for _, p := range paths {
					o.Watch = append(o.Watch, selection.Rule{Category: category, Pattern: p})
				}
			}
		}
	}
	set, problems := selection.Compile(o)
	for _, p := range problems {
		d.warn("file_paths: " + p.Error())
	}
	w.files.Store(set)
	if a := w.sources.audit; a != nil && slices.ContainsFunc(a.Hooks(), func(h event.Hook) bool { return slices.Contains(h.Kinds, event.KindFile) }) {
		if err := a.Watch(auditWatches(set)); err != nil {
			return err
		}
	}
	if w.sources.ebpf == nil {
		return nil
	}
	if err := w.sources.ebpf.Watch(set); err != nil {
		return err
	}
	if blind := w.sources.ebpf.Blind(); blind != "" {
		d.warn("file_paths: not watched are " + blind)
	}
	return nil
}

// rulesOf are the patterns of a configuration, category by category.
func rulesOf(paths map[string][]string) []selection.Rule {
	var out []selection.Rule
	for _, category := range slices.Sorted(maps.Keys(paths)) {
		for _, p := range paths[category] {
			out = append(out, selection.Rule{Category: category, Pattern: p})
		}
	}
	return out
}

const maxPaths = 100_000 // of one query for paths

// paths are what the column path of a query says.
func (d *daemon) paths(text string) ([]string, error) {
	r := &pathColumn{at: -1}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := d.engines.Query(ctx, text, r)
	if r.at < 0 && err == nil {
		err = errors.New("it has no column path")
	}
	return r.paths, err
}

// pathColumn takes the column path of a query's rows.
type pathColumn struct {
	at    int
	paths []string
}

func (r *pathColumn) Columns(names, _ []string) error {
	r.at = slices.Index(names, "path")
	return nil
}

func (r *pathColumn) Row(row []schema.Value) error {
	if len(r.paths) >= maxPaths {
		return fmt.Errorf("it has more than %d rows", maxPaths)
	}
	if r.at >= 0 {
		r.paths = append(r.paths, row[r.at].Text())
	}
	return nil
}

func (r *pathColumn) Warning(string) {}

// auditWatches are the selection as audit's rules can have it: the directories and files that
// patterns begin with. What they tell of beyond the selection is dropped by whoever asked.
func auditWatches(set *selection.Set) []audit.Watch {
	var out []audit.Watch
	for _, p := range set.Prefixes() {
		if !p.Exclude {
			st, err := os.Stat(p.Path)
			out = append(out, audit.Watch{Path: p.Path, Dir: err == nil && st.IsDir()})
		}
	}
	return out
}
