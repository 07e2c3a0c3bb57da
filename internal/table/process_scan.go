package table

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// uses reports whether the query reads any of the columns named.
func uses(def *schema.Def, q *schema.Query, names ...string) bool {
	for _, name := range names {
		if q.Uses(def.Column(name)) {
			return true
		}
	}
	return false
}

// pidsOf returns the pids that column pid is constrained to by = or IN, ascending and
// each once, and whether it is so constrained. What equals no pid is left out; -1, which
// stands for no process, is kept.
func pidsOf(def *schema.Def, q *schema.Query) (pids []int, asked bool) {
	values, asked := q.Equals(def.Column("pid"))
	for _, v := range values {
		var n int64
		switch v.Kind() {
		case schema.KindInt:
			n = v.Int()
		case schema.KindFloat:
			if v.Float() != math.Trunc(v.Float()) {
				continue
			}
			n = v.Int()
		case schema.KindText:
			var err error
			if n, err = strconv.ParseInt(v.Text(), 10, 64); err != nil {
				continue
			}
		default:
			continue
		}
		if n >= -1 && n <= math.MaxInt32 {
			pids = append(pids, int(n))
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), asked
}

// eachProcess opens /proc and calls fn for each process that q asks for: those (and those
// threads) that it names by pid, else all. What fn could not read is no error of the scan:
// a process that has gone is skipped, the first of other refusals is told to the user.
func eachProcess(ctx context.Context, proc procfs.FS, def *schema.Def, q *schema.Query, fn func(*procfs.Process) error) error {
	d, err := proc.Open()
	if err != nil {
		return err
	}
	defer d.Close()
	pids, asked := pidsOf(def, q)
	if !asked {
		if pids, err = d.Pids(nil); err != nil {
			return err
		}
	}
	r := refusals{table: def.Name}
	if err := r.each(ctx, d, pids, fn); err != nil {
		return err
	}
	r.warn(q)
	return nil
}

// refusals counts the processes that could not be read, or not wholly.
type refusals struct {
	table string
	n     int
	first error
}

// each calls fn for the processes of d numbered pids; its only error is that ctx ended.
func (r *refusals) each(ctx context.Context, d *procfs.Dir, pids []int, fn func(*procfs.Process) error) error {
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := d.Process(pid)
		if err == nil {
			err = fn(p)
		}
		r.add(err)
	}
	return nil
}

func (r *refusals) add(err error) {
	if err == nil || errors.Is(err, procfs.ErrGone) {
		return
	}
	if r.n++; r.first == nil {
		r.first = err
	}
}

func (r *refusals) warn(q *schema.Query) {
	switch r.n {
	case 0:
	case 1:
		q.Warning(fmt.Sprintf("Table %s is incomplete: %v", r.table, r.first))
	default:
		q.Warning(fmt.Sprintf("Table %s is incomplete for %d processes, the first: %v", r.table, r.n, r.first))
	}
}
