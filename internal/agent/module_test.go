package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// reader is a Contents that answers when it is told to.
type reader struct {
	in, out chan *event.File
}

func (r *reader) Ask(f *event.File) bool {
	if f.TargetPath == "/refused" {
		f.HashError = "busy"
		return false
	}
	r.in <- f
	return true
}
func (r *reader) Done() <-chan *event.File { return r.out }
func (r *reader) Close()                   { close(r.out) }

func (r *reader) answer(t *testing.T, path string) {
	t.Helper()
	f := <-r.in
	if f.TargetPath != path || f.Inode != 7 {
		t.Errorf("asked for %s, inode %d; want %s, 7", f.TargetPath, f.Inode, path)
	}
	f.SHA256 = "of" + path
	r.out <- f
}

// TestModulesWaitForDigests has modules' events wait for the digests of their files, but not for
// ever: neither while the agent runs nor at its end.
func TestModulesWaitForDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := func(name, path string) event.Event {
			return &event.Module{Header: event.Header{Kind: event.KindModule, NTime: 30}, Operation: "load", Name: name, ModulePath: path, Inode: 7}
		}
		unload := &event.Module{Header: event.Header{Kind: event.KindModule, NTime: 40}, Operation: "unload", Name: "gone"}
		r := &reader{in: make(chan *event.File, 10), out: make(chan *event.File)}
		store := &memory{}
		a := New(Options{
			Inputs: []Input{{Name: "ebpf", Source: &replay{hold: true, size: 10, events: []event.Event{
				load("one", "/one"), load("refused", "/refused"), load("memory", ""), unload, load("two", "/two"), load("three", "/three")}}}},
			Processes: seeded(), Store: store, Modules: r,
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := a.Run(ctx)
			ended <- err
		}()
		synctest.Wait()
		want := []string{"module refused busy", "module memory ", "module gone "}
		lines, _ := store.get()
		check(t, "told at once", lines, want)
		r.answer(t, "/one")
		synctest.Wait()
		lines, _ = store.get()
		want = append(want, "module one of/one")
		check(t, "told with its digest", lines, want)
		time.Sleep(moduleWait + time.Millisecond)
		synctest.Wait()
		lines, _ = store.get()
		want = append(want, "module two slow", "module three slow")
		check(t, "told without", lines, want)
		r.answer(t, "/two") // too late, and told already
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		lines, _ = store.get()
		check(t, "told in the end", lines, want)
	})
}
