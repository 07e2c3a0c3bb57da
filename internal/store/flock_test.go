package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Without locks of open file descriptions events are kept and read all the same: by the agent
// itself and by others, while it writes and afterwards.
func TestFlock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, vfs: flockName})
	reader := newPool(dbPath(dir), flockName, event.Kinds)
	reader.readOnly = true
	defer reader.close()
	f := newFeed()
	var want []int64
	for range 30 {
		for _, e := range f.batch(1 + f.r.IntN(300)) {
			s.Append(e)
			want = append(want, e.Head().EID)
		}
		commit(t, s)
		own := eids(t, s, event.Selection{})
		if !slices.Equal(own, want) {
			t.Fatalf("the agent reads %d events of %d", len(own), len(want))
		}
		if other := eids(t, &Reader{reader}, event.Selection{}); !slices.Equal(other, want) {
			t.Fatalf("another reads %d events of %d", len(other), len(want))
		}
	}
	shut(t, s)
	if got := eids(t, &Reader{reader}, event.Selection{}); !slices.Equal(got, want) {
		t.Errorf("afterwards %d events of %d are there", len(got), len(want))
	}
	for _, name := range []string{"events.db", "events.db-shm", "events.db-journal"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "events.db-wal")); err == nil {
		t.Error("there is a write-ahead log: the test proves nothing")
	}
}
