package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// querier is what answers: a running agent, or an engine of this process.
type querier interface {
	Query(ctx context.Context, text string, r sql.Receiver) error
	// Tables are the definitions that the shell shows and completes.
	Tables() []*schema.Def
}

// opener finds what answers, and how to let go of it.
type opener func(cmd *cobra.Command) (q querier, cleanup func() error, err error)

// maxInput bounds SQL on standard input; the engine takes less.
const maxInput = 1 << 20

// newQueryCommand returns the query command. Its shell's history is kept in the file
// history unless a flag names another; "" keeps none.
func newQueryCommand(open opener, history string) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "query [SQL]",
		Short: "Answer SQL over events and the present state of this host",
		Long: `Answer SQL in osquery's dialect, from the running agent if there is one, else from the
event store and the present state of this host. Several statements are separated by
semicolons. Without SQL, read it from standard input; when that is a terminal, start a
shell with history and completion, where .help says more.

All values in JSON are strings, NULL is an empty one. Bytes that could control a terminal
are printed as \xNN.`,
		Example: `  goshawk query "SELECT pid, path FROM processes WHERE uid = 0"
  goshawk query --format json "SELECT * FROM exec_events ORDER BY time DESC LIMIT 10"
  goshawk query < hunt.sql
  goshawk query`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats, format) {
				return failf(exitUsage, "no format is called %q; formats are %s", format, strings.Join(formats, ", "))
			}
			s := newSession(cmd, format)
			shell := len(args) == 0 && terminal(cmd.InOrStdin()) && s.sameScreen
			var text string
			if !shell {
				var err error
				if text, err = queryText(cmd.InOrStdin(), args); err != nil {
					return err
				}
			}
			q, cleanup, err := open(cmd)
			if err != nil {
				return err
			}
			s.querier = q
			if shell {
				err = runShell(cmd.Context(), s, history)
			} else {
				err = s.run(cmd.Context(), text)
			}
			if err = errors.Join(err, cleanup()); err != nil {
				return &exitError{exitFailed, err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "how to print: "+strings.Join(formats, ", "))
	cmd.Flags().StringVar(&history, "history", history, "file that keeps what was asked in the shell")
	return cmd
}

// queryText is the SQL on the command line, or on standard input.
func queryText(in io.Reader, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return "", failf(exitFailed, "read standard input: %w", err)
	}
	if len(b) > maxInput {
		return "", failf(exitUsage, "standard input has more than %d bytes of SQL", maxInput)
	}
	return string(b), nil
}

// session prints answers to where the command was started.
type session struct {
	querier
	format      string
	out, errOut io.Writer
	sameScreen  bool // standard output is a terminal
	progress    bool // standard error is one
}

func newSession(cmd *cobra.Command, format string) *session {
	s := &session{format: format, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr()}
	s.sameScreen, s.progress = terminal(s.out), terminal(s.errOut)
	return s
}

// run asks one query and prints its answer. An interrupt ends the query.
func (s *session) run(ctx context.Context, text string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var screen io.Writer
	if s.progress {
		screen = s.errOut
	}
	progress := startProgress(screen)
	notes := progress.over(s.errOut, false)
	p := newPrinter(s.format, progress.over(s.out, s.sameScreen), func(sentence string) {
		fmt.Fprintf(notes, "warning: %s\n", safe(sentence))
	})
	err := s.Query(ctx, text, &counter{p, progress})
	if err == nil {
		err = p.end()
	}
	progress.stop()
	if ctx.Err() != nil && err != nil {
		return errors.New("query stopped")
	}
	return withHint(err)
}

// counter counts the rows that pass through it.
type counter struct {
	printer
	progress *progress
}

func (c *counter) Row(values []schema.Value) error {
	c.progress.row()
	return c.printer.Row(values)
}

// withHint is err with what can be done about it, safe to print.
func withHint(err error) error {
	if err == nil {
		return nil
	}
	said := safe(err.Error())
	var fault *sql.Error
	if errors.As(err, &fault) && fault.Hint != "" {
		said += "; " + safe(fault.Hint)
	}
	return errors.New(said)
}

// terminal reports whether a stream is a terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
