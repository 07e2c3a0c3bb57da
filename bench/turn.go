package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A load is one sort of operation that is repeated.
type load string

const (
	process    load = "process"
	connection load = "connection"
	steady     load = "steady" // 20,000 processes and connects a minute
	getpid     load = "getpid"
	storm      load = "storm"  // all that audit can tell of, as fast as it goes
	building   load = "build"  // go build with an empty cache, where nobody watches files
	unpacking  load = "unpack" // tar x of Go's own sources, and rm, there too
)

var loads = []load{process, connection, steady, getpid, storm, building, unpacking}

// ofFiles reports whether a load is put on only where it is asked for by name: it takes long, and
// is about kind file.
func (l load) ofFiles() bool { return l == building || l == unpacking }

// steadyCount is ten seconds of it.
const steadyCount = 3330

// A side is one way to run the host while the load works. Its methods are called in the
// order in which they stand, the first three once a turn.
type side interface {
	name() string
	// start returns when the side watches.
	start(ctx context.Context) error
	// tasks are the processes that the side consists of, kernel threads among them.
	tasks() []int
	// told says what became of the events of a load of n operations.
	told(ctx context.Context, l load, n int) (tally, error)
	stop() error
}

// A cost is what one load came to in one turn.
type cost struct {
	load  time.Duration // CPU time of the load, all operations
	agent time.Duration // CPU time of the side's tasks
	queue time.Duration // of that the time of the kernel thread that sends audit's records
	wall  time.Duration
	n     int

	tally
}

// A tally is what became of events.
type tally struct {
	generated int // what of the load the side is there to tell of
	captured  int // what it kept of that
	lost      int // what it says that it lost, of the load or of anything else
}

// A turn is one round of one side.
type turn struct {
	side   string
	costs  map[load]cost
	memory memory
	ready  time.Duration // from its start until it watches; 0 of a side that is not goshawk
	idle   float64       // share of a core that the side's tasks took when nothing happened; -1 not measured
	others float64       // share of the machine that was spent by nobody that we know
}

// all gives every side its turn, as often as there are rounds. The order moves on by one
// each round, so that no side always follows the same one.
func (b *bench) all(ctx context.Context) ([]turn, error) {
	var out []turn
	for r := range b.rounds {
		for i := range b.order {
			s := b.order[(i+r)%len(b.order)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", r+1, b.rounds, s.name())
			t, err := b.turn(ctx, s, r)
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", s.name(), err)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// turn starts a side, puts every load on it, and stops it.
func (b *bench) turn(ctx context.Context, s side, round int) (t turn, err error) {
	b.turns++
	if b.audit != nil {
		if err := b.audit.prepare(strings.Contains(s.name(), "audit")); err != nil {
			return t, err
		}
	}
	defer func() {
		if e := s.stop(); err == nil && e != nil {
			err = fmt.Errorf("stop: %w", e)
		}
	}()
	begin := time.Now()
	if err := s.start(ctx); err != nil {
		return t, fmt.Errorf("start: %w", err)
	}
	t = turn{side: s.name(), costs: map[load]cost{}, idle: -1}
	if _, ok := s.(*goshawk); ok {
		t.ready = time.Since(begin)
	}
	machine, err := readMachine()
	if err != nil {
		return t, err
	}
	spent, err := cpuOf(s.tasks())
	if err != nil {
		return t, err
	}
	begun := spent
	watch := watchMemory(s.tasks())
	var known time.Duration
	for _, l := range loads {
		if !b.puts(l) || l == storm && (s.name() == "goshawk" || s.name() == "goshawk-processes") {
			continue
		}
		queue := sendingTime(s.tasks())
		c, err := b.put(ctx, l)
		if err != nil {
			return t, err
		}
		after, err := settled(ctx, s.tasks())
		if err != nil {
			return t, err
		}
		c.agent, spent = after-spent, after
		c.queue = sendingTime(s.tasks()) - queue
		t.costs[l] = c
		known += c.load
	}
	t.memory = watch.stop()
	if t.others, err = machine.others(known + spent - begun); err != nil {
		return t, err
	}
	if len(s.tasks()) > 0 && round == 0 && b.idle > 0 {
		if t.idle, err = idleOf(ctx, s.tasks(), time.Duration(b.idle)*time.Second); err != nil {
			return t, err
		}
	}
	for l, c := range t.costs {
		if c.tally, err = s.told(ctx, l, c.n); err != nil {
			return t, fmt.Errorf("count what was captured: %w", err)
		}
		t.costs[l] = c
	}
	return t, nil
}

// puts reports whether a load is asked for.
func (b *bench) puts(l load) bool {
	if slices.Contains(strings.Split(b.loads, ","), string(l)) {
		return l != storm || b.storm > 0
	}
	return b.loads == "" && !l.ofFiles() && (l != storm || b.storm > 0)
}

// put runs one load to its end.
func (b *bench) put(ctx context.Context, l load) (cost, error) {
	if l.ofFiles() {
		return b.putFiles(ctx, l)
	}
	c := cost{n: b.count}
	args := []string{string(l), strconv.Itoa(b.count), strconv.Itoa(b.workers)}
	switch l {
	case process:
		args = append(args, b.starts(l))
	case steady:
		c.n = steadyCount
		args[1] = strconv.Itoa(c.n)
		args = append(args, b.starts(l))
	case connection:
		args = append(args, strconv.Itoa(1+b.turns%250))
	case getpid:
		c.n = b.getpids
		args[1], args[2] = strconv.Itoa(b.getpids), "1"
	case storm:
		args = []string{strconv.Itoa(b.storm), strconv.Itoa(b.workers), b.watched()}
	}
	cmd := exec.CommandContext(ctx, b.program(l), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return c, fmt.Errorf("run load %s: %w", l, err)
	}
	var cpu, wall int64
	if _, err := fmt.Sscanf(strings.TrimSpace(string(out)), "%d %d", &cpu, &wall); err != nil {
		return c, fmt.Errorf("read %q of load %s: %w", out, l, err)
	}
	if l == storm { // it says how often it did its turn, and the CPU time
		c.n, cpu, wall = int(cpu), wall, int64(b.storm)*int64(time.Second)
	}
	c.load, c.wall = time.Duration(cpu), time.Duration(wall)
	return c, nil
}

// putFiles does once what people do with many files, beside the directory that is watched.
func (b *bench) putFiles(ctx context.Context, l load) (c cost, err error) {
	dir, err := os.MkdirTemp(b.dir, "files-")
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.CommandContext(ctx, "go", "build", "./internal/selection")
	cmd.Env = append(os.Environ(), "GOCACHE="+dir, "GOTMPDIR="+dir, "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	if l == unpacking {
		cmd = exec.CommandContext(ctx, "/bin/sh", "-c", "tar xf "+b.archive()+" -C "+dir+" && rm -r "+dir+"/*")
	}
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return c, fmt.Errorf("run load %s: %w: %s", l, err, out)
	}
	return cost{n: 1, wall: time.Since(begun), load: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}
