package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/extension"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/table"
)

// extensionOptions are the flags of extension.
type extensionOptions struct {
	runOptions
	manager           string
	timeout, interval int
	tables            []string
	maxRows           int
	verbose           bool
}

func newExtension() *cobra.Command {
	o := &extensionOptions{}
	cmd := &cobra.Command{
		Use:   "extension",
		Short: "Bring tables of events into a running osqueryd",
		Long: `Watch this host, as goshawk run does, and bring the tables of what happens into a running
osqueryd through its extension socket, until either ends: goshawk's own tables of events
(exec_events, network_events, dns_events …), those about itself (goshawk_losses …), and
osquery's bpf_process_events and bpf_socket_events where that osqueryd has them no more.

osqueryd starts it itself when extensions.load names a link to goshawk whose name ends in
.ext.

A table answers with all that is kept and matches, in one message: an answer of more than
--max-rows rows is an error. osqueryd keeps no place for tables of extensions, so name the time in
scheduled queries: WHERE time > (SELECT unix_time - 600 FROM time).`,
		Example: `  goshawk extension --socket /var/osquery/osquery.em
  goshawk extension --socket /var/osquery/osquery.em --tables exec_events,dns_events`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitUnsupported, exitPrivilege, exitBusy),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.manager, "socket", "", "osqueryd's extension socket, as /var/osquery/osquery.em")
	f.IntVar(&o.timeout, "timeout", 3, "seconds to wait for osqueryd's socket")
	f.IntVar(&o.interval, "interval", 3, "seconds between looks whether osqueryd lives")
	f.StringSliceVar(&o.tables, "tables", nil, "tables to bring, with commas (default: those above)")
	f.IntVar(&o.maxRows, "max-rows", 100_000, "rows that one answer may have")
	f.BoolVar(&o.verbose, "verbose", false, "accepted, as osqueryd passes it on")
	f.StringSliceVar(&o.kinds, "kinds", nil, "kinds of event to observe, with commas (default all): "+strings.Join(kindNames(), ","))
	f.StringVar(&o.source, "source", "auto", "where events come from: auto, ebpf, audit, or both (audit for what eBPF does not tell of)")
	o.sensing.flags(f)
	f.Int64Var(&o.expiry, "events_expiry", 3600, "seconds to keep events; 0 is for ever")
	f.Int64Var(&o.runOptions.maxRows, "events_max", 5_000_000, "rows to keep in each table of events; 0 is no bound")
	f.Int64Var(&o.maxBytes, "events_max_bytes", 512<<20, "bytes that the store may take on disk; 0 is no bound")
	f.StringVar(&o.rootDir, "root-dir", "/", "directory below which all files of goshawk lie")
	f.StringVar(&o.hostRoot, "host-root", "/", "where the root directory of the host is, for goshawk in a container")
	return cmd
}

// check finds wrong usage before anything is touched.
func (o *extensionOptions) check() error {
	o.lasting = o.expiry // no rules are matched here
	o.format, o.quiet, o.canary, o.runtimes = "text", true, canaryInterval, []string{"auto"}
	switch {
	case o.manager == "":
		return failf(exitUsage, "--socket: name osqueryd's extension socket, as /var/osquery/osquery.em")
	case o.timeout < 1 || o.interval < 1 || o.maxRows < 1:
		return failf(exitUsage, "--timeout, --interval, --max-rows: at least 1")
	}
	if err := o.runOptions.check(); err != nil {
		return err
	}
	all := offered(relations(&table.Env{}, nil, nil))
	for _, name := range o.tables {
		if !slices.ContainsFunc(all, func(r schema.Relation) bool { return r.Def().Name == name }) {
			return failf(exitUsage, "--tables: no table of events is called %q; goshawk tables lists them", name)
		}
	}
	o.attach = o.serve
	return nil
}

// offered are the tables that an osqueryd may be given.
func offered(all []schema.Relation) []schema.Relation {
	return slices.DeleteFunc(slices.Clone(all), func(r schema.Relation) bool {
		def := r.Def()
		return !def.Events && !strings.HasPrefix(def.Name, "goshawk_")
	})
}

// chosen are the tables to bring: those asked for, else those that osqueryd lacks and no
// query of an osqueryd can mean otherwise.
func (o *extensionOptions) chosen(all []schema.Relation, has map[string]bool) (out []schema.Relation, err error) {
	native := map[string]bool{"bpf_process_events": true, "bpf_socket_events": true}
	for _, k := range event.Kinds {
		native[k.Table] = true
	}
	for _, r := range offered(all) {
		name := r.Def().Name
		switch {
		case len(o.tables) > 0 && !slices.Contains(o.tables, name):
		case has[name] && len(o.tables) > 0:
			return nil, fmt.Errorf("osqueryd has a table %s of its own: start it with --disable_tables=%s", name, name)
		case has[name]:
		case len(o.tables) > 0 || native[name] || strings.HasPrefix(name, "goshawk_"):
			out = append(out, r)
		}
	}
	return out, nil
}

// serve registers the tables and answers until ctx ends or osqueryd is gone.
func (o *extensionOptions) serve(ctx context.Context, a *answers) error {
	return extension.Serve(ctx, extension.ServeOptions{
		Name: "goshawk", Version: version, Socket: o.manager,
		Timeout: time.Duration(o.timeout) * time.Second, Interval: time.Duration(o.interval) * time.Second,
		Sync: a.sync, MaxRows: o.maxRows,
		Choose: func(has map[string]bool) ([]schema.Relation, error) { return o.chosen(a.tables, has) },
	})
}
