package table

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// pipeEnd is a descriptor of a pipe.
type pipeEnd struct {
	pid, fd     int
	device      uint64
	inode       uint64
	named       bool
	read, write bool
}

func (e *pipeEnd) mode() string {
	switch {
	case e.read && e.write:
		return "rw"
	case e.write:
		return "w"
	}
	return "r"
}

// openPipe is a row of process_open_pipes: one end, and one that it leads to or comes from.
type openPipe struct{ own, other *pipeEnd }

// maxPipePairs bounds the rows of one pipe, which hundreds of processes may have inherited.
const maxPipePairs = 4096

// joinPipes makes rows of ends: each with every one of another process that it can reach, or be
// reached by.
func joinPipes(ends []*pipeEnd) (rows []*openPipe, cut bool) {
	slices.SortFunc(ends, func(a, b *pipeEnd) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.inode, b.inode), cmp.Compare(a.pid, b.pid), cmp.Compare(a.fd, b.fd))
	})
	for len(ends) > 0 {
		n := 1
		for n < len(ends) && ends[n].inode == ends[0].inode && ends[n].device == ends[0].device {
			n++
		}
		pairs := 0
		for _, a := range ends[:n] {
			for _, b := range ends[:n] {
				if a.pid == b.pid || !(a.write && b.read || a.read && b.write) {
					continue
				}
				if pairs++; pairs > maxPipePairs {
					cut = true
					break
				}
				rows = append(rows, &openPipe{a, b})
			}
		}
		ends = ends[n:]
	}
	return rows, cut
}

// processOpenPipes looks at all processes whatever is asked: a pipe's other end may be anywhere.
func processOpenPipes(fs procfs.FS) *schema.Table[*openPipe] {
	type row = *openPipe
	text := func(name string, of func(row) string, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(r row) schema.Value { return schema.TextValue(of(r)) }, doc)
	}
	t := &schema.Table[row]{
		Name: "process_open_pipes",
		Doc:  "Pipes between processes",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.own.pid }, "Process ID"),
			schema.Int("fd", func(r row) *int { return &r.own.fd }, "Number of its file descriptor"),
			text("mode", func(r row) string { return r.own.mode() }, "r, w or rw: what it is open for"),
			schema.Int("inode", func(r row) *uint64 { return &r.own.inode }, "Inode of the pipe"),
			text("type", func(r row) string {
				if r.own.named {
					return "named"
				}
				return "anonymous"
			}, "named or anonymous"),
			schema.Int("partner_pid", func(r row) *int { return &r.other.pid }, "Process at the other end"),
			schema.Int("partner_fd", func(r row) *int { return &r.other.fd }, "Number of that process's file descriptor"),
			text("partner_mode", func(r row) string { return r.other.mode() }, "r, w or rw: what that one is open for"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var ends []*pipeEnd
		err := eachProcess(ctx, fs, t.Def(), &schema.Query{Warn: q.Warn}, func(p *procfs.Process) error {
			type link struct {
				fd    int
				named bool
			}
			var links []link
			err := p.FDs(func(fd int, target []byte) {
				if named := bytes.HasPrefix(target, []byte{'/'}); named || bytes.HasPrefix(target, []byte("pipe:")) {
					links = append(links, link{fd, named})
				}
			})
			for _, l := range links {
				if device, inode, read, write, ok := p.FDPipe(l.fd); ok {
					ends = append(ends, &pipeEnd{p.PID, l.fd, device, inode, l.named, read, write})
				}
			}
			return err
		})
		rows, cut := joinPipes(ends)
		if cut {
			q.Warning("Table process_open_pipes is incomplete: a pipe has too many ends")
		}
		return rows, err
	}
	return t
}
