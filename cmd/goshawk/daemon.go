package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/table"
	"github.com/goshawk-project/goshawk/internal/watchdog"
)

func newDaemon() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run as osqueryd does: configuration, schedule, logs, a server",
		Long: `Run as osqueryd does, until stopped: watch this host, keep what happens, run the queries of
a configuration when they are due, log what they give, and take configuration and queries
from a server that speaks osquery's TLS API.

Flags are osquery's, with one dash or two, and stand on the command line or in a file
(--flagfile), one a line. What the configuration's "options" say wins over both, but for
flags marked (c). An unknown flag is an error on the command line, and a warning in a file.

The daemon is a process that watches another, its worker, as osqueryd's is: a worker that
takes too much memory or CPU (--watchdog_level) or dies is started again, and the query that
it ran then is not run for a day. --disable_watchdog does without.

SIGHUP reads the configuration again. One that cannot be read, or is wrong, changes
nothing: the last good one stays, and the log says where the fault is.

Secrets are read from files or the environment (--enroll_secret_path, --enroll_secret_env).`,
		Example: `  goshawk daemon --flagfile=/etc/osquery/osquery.flags
  goshawk daemon --config_path=/etc/osquery/osquery.conf --config_check
  goshawk daemon --tls_hostname=fleet.example.com --config_plugin=tls --logger_plugin=tls \
    --enroll_tls_endpoint=/api/osquery/enroll --config_tls_endpoint=/api/osquery/config \
    --logger_tls_endpoint=/api/osquery/log --enroll_secret_path=/etc/goshawk/secret`,
		Annotations:        exitStatus(exitOK, exitFailed, exitUsage, exitPrivilege, exitBusy),
		DisableFlagParsing: true, // which is gflags', not ours
		RunE: func(cmd *cobra.Command, args []string) error {
			flags, problems, err := config.Parse(args)
			switch {
			case errors.Is(err, config.ErrHelp):
				return cmd.Help()
			case err != nil:
				return failf(exitUsage, "%w", err)
			}
			return runDaemon(cmd.Context(), flags, problems, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetUsageTemplate(strings.Replace(usageTemplate, "{{if .HasAvailableLocalFlags}}\n\nFlags:\n{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}",
		"\n\nFlags:\n"+flagUsages(), 1))
	cmd.SetHelpTemplate("{{.Long}}\n\n" + cmd.UsageTemplate())
	return cmd
}

// flagUsages lists the flags that mean something here, and names the others.
func flagUsages() string {
	var b strings.Builder
	var idle []string
	b.WriteString("  --help\n        Print this\n")
	for _, f := range config.All() {
		switch {
		case f.Hidden || f.Alias != "":
		case !f.Used:
			idle = append(idle, f.Name)
		default:
			mark := ""
			if f.CommandLine {
				mark = " (c)"
			}
			value := ""
			if f.Type != "bool" {
				value = " " + f.Type
			}
			if f.Default != "" && f.Default != "false" && f.Default != "0" {
				mark += fmt.Sprintf(" (default %s)", f.Default)
			}
			fmt.Fprintf(&b, "  --%s%s\n        %s%s\n", f.Name, value, f.Description, mark)
		}
	}
	fmt.Fprintf(&b, "\nAccepted, and without effect here:\n")
	line := " "
	for _, name := range idle {
		if len(line)+1+len(name) > 90 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + name
	}
	b.WriteString(line)
	return b.String()
}

// runDaemon does what flags say.
func runDaemon(ctx context.Context, flags *config.Flags, problems []config.Problem, out, errOut io.Writer) error {
	if flags.Bool("config_check") || flags.Bool("config_dump") {
		return checkConfig(flags, problems, out, errOut)
	}
	watcher, death := watchdog.Worker()
	d, err := newDaemonRun(flags, problems, errOut)
	if err != nil {
		return failed(err)
	}
	if watcher == 0 && !flags.Bool("disable_watchdog") {
		return supervise(ctx, flags, errOut)
	}
	d.watcher, d.death = watcher, death
	return failed(d.run(ctx, out, errOut))
}

// checkConfig reads the configuration and says what is wrong with it, or prints it.
func checkConfig(flags *config.Flags, problems []config.Problem, out, errOut io.Writer) error {
	if plugin := flags.String("config_plugin"); plugin != "filesystem" {
		return failf(exitUsage, "--config_check, --config_dump: the configuration comes from config_plugin %q, not from files", plugin)
	}
	sources, err := config.ReadFiles(flags.String("config_path"))
	if err != nil {
		return &exitError{exitFailed, err}
	}
	if flags.Bool("config_dump") {
		for _, s := range sources {
			if _, err := fmt.Fprintf(out, "{\"%s\": %s}\n", s.Name, s.Text); err != nil {
				return failed(err)
			}
		}
		return nil
	}
	c, err := config.Load(sources, loadOptions(true))
	if err != nil {
		return &exitError{exitFailed, err}
	}
	_, options := flags.With(c.Options, false)
	for _, list := range [][]config.Problem{problems, c.Problems, options} {
		for _, p := range list {
			fmt.Fprintf(errOut, "goshawk: warning: %s\n", p)
		}
	}
	return nil
}

// loadOptions are what a configuration is read with; local says that it is this host's own.
func loadOptions(local bool) config.Options {
	host, _ := os.Hostname() // without a name the host is of the shard of ""
	return config.Options{Version: table.OsqueryVersion, Host: host, Files: local}
}
