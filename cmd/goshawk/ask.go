package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/ctl"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/store"
)

func newQuery() *cobra.Command {
	h := &host{}
	history := ""
	if home, err := os.UserHomeDir(); err == nil {
		history = filepath.Join(home, ".goshawk_history")
	}
	cmd := newQueryCommand(h.ask, history)
	h.flags(cmd.Flags())
	return cmd
}

// ask finds who answers queries on this host: the agent behind the socket when there is
// one, else an engine of our own over the store's files and the host's present state.
func (h *host) ask(*cobra.Command) (q querier, done func() error, err error) {
	client, err := ctl.Dial(h.socketPath())
	switch {
	case err == nil:
		return remote{client}, func() error { return nil }, nil
	case !errors.Is(err, ctl.ErrNotRunning) && !errors.Is(err, fs.ErrPermission):
		return nil, nil, failed(err)
	}
	log := &files{}
	if log.reader, log.err = store.OpenReader(h.store()); errors.Is(log.err, store.ErrMissing) {
		log.err = nil // nothing has happened yet
	}
	env := here(h.hostRoot)
	env.InstanceID = readInstance(h.store())
	engine, err := sql.Open(relations(env, nil, log), sql.Options{})
	if err != nil {
		return nil, nil, failed(errors.Join(err, log.close()))
	}
	return engine, func() error { return errors.Join(engine.Close(), log.close()) }, nil
}

// remote is a running agent. Its tables are taken to be ours: it is the same program.
type remote struct{ *ctl.Client }

// Tables implements querier.
func (remote) Tables() []*schema.Def { return definitions() }

// files is the log of an agent that does not run. What is wrong with it matters only to
// queries that read it.
type files struct {
	reader *store.Reader
	err    error
}

// Scan implements event.Log.
func (f *files) Scan(ctx context.Context, s event.Selection) (event.Cursor, error) {
	switch {
	case f.err != nil:
		return nil, f.err
	case f.reader == nil:
		return nothing{}, nil
	}
	return f.reader.Scan(ctx, s)
}

func (f *files) close() error {
	if f.reader == nil {
		return nil
	}
	return f.reader.Close()
}

// nothing is a cursor without events.
type nothing struct{}

func (nothing) Next() (event.Event, error) { return nil, nil }
func (nothing) Close() error               { return nil }
