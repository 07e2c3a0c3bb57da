package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ncruces/go-sqlite3"
)

// Why a store cannot be opened; test with errors.Is. Messages say what to do.
var (
	// ErrLocked: another agent has it. The error is a *LockedError.
	ErrLocked = errors.New("another agent holds the store")
	// ErrNewer: a later format wrote it. The error is a *NewerError.
	ErrNewer = errors.New("written by a newer goshawk")
	// ErrDenied: this user may not read or write it.
	ErrDenied = errors.New("permission denied")
	// ErrFull: the file system has no room.
	ErrFull = errors.New("no space left")
	// ErrCorrupt: it is not a store, or was one. Only readers see it: Open moves such a
	// file aside.
	ErrCorrupt = errors.New("damaged store")
	// ErrMissing: there is nothing to read. Only readers see it.
	ErrMissing = errors.New("no store")
)

// LockedError says who holds a store.
type LockedError struct {
	Dir string
	PID int // 0 when not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock store %q: another agent holds it: stop it, or choose another directory", e.Dir)
	}
	return fmt.Sprintf("lock store %q: the agent with pid %d holds it: stop it, or choose another directory", e.Dir, e.PID)
}

// Is reports whether target is ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// NewerError says that a store has a format that this program does not know.
type NewerError struct {
	Path        string
	Have, Known int // formats
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("open %q: written by a newer goshawk (format %d, this one knows %d): install that version, or move the file away", e.Path, e.Have, e.Known)
}

// Is reports whether target is ErrNewer.
func (e *NewerError) Is(target error) bool { return target == ErrNewer }

// classify wraps err with the sentinel it amounts to, if any.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case isCorrupt(err):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS),
		errors.Is(err, sqlite3.PERM), errors.Is(err, sqlite3.READONLY):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

func isCorrupt(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB)
}

func isFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, sqlite3.FULL) ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
