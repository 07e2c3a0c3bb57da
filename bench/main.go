// Command bench puts the same load on a host bare, with goshawk, and with auditd, in turn,
// and prints what each costs: the load's own CPU time an operation as a ratio to bare, the
// agent's CPU time and memory, and how much of the load it told of. It needs root, gcc and
// Debian's auditd (`make bench` installs both), changes the kernel's audit rules while it
// runs, and puts back what it found.
//
// It knows goshawk as a user does: through its commands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds  int
	count   int
	getpids int
	workers int
	idle    int
	storm   int
	loads   string
	sides   string
	binary  string
	out     string
	section string
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "times that every side has its turn")
	flag.IntVar(&o.count, "n", 20_000, "processes, and connections, in one turn")
	flag.IntVar(&o.getpids, "getpids", 5_000_000, "getpid calls in one turn")
	flag.IntVar(&o.workers, "workers", 4, "processes that make the load")
	flag.IntVar(&o.idle, "idle", 10, "seconds that goshawk is watched doing nothing")
	flag.IntVar(&o.storm, "storm", 0, "seconds that the workers start processes, connect and write to watched files as fast as they can, where audit tells of it; 0 is none")
	flag.StringVar(&o.loads, "loads", "", "what is put on the sides, of process, connection, steady, getpid, storm, build and unpack; all but the last two when empty")
	flag.StringVar(&o.sides, "sides", "bare,goshawk,goshawk-processes,goshawk-audit,auditd", "who has a turn; bare always has")
	flag.StringVar(&o.binary, "goshawk", "", "goshawk binary to measure; built from this tree when empty")
	flag.StringVar(&o.out, "out", "", "file to write the report to, in Markdown")
	flag.StringVar(&o.section, "section", "", "file in which the table is written between the lines <!-- bench --> and <!-- end of bench -->")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("read arguments: unexpected %q", flag.Args())
	}
	if os.Geteuid() != 0 {
		return errors.New("start: must run as root")
	}
	dir, err := os.MkdirTemp("", "goshawk-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir}
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := b.choose(); err != nil {
		return err
	}
	kernel, err := openAudit(ctx)
	if err != nil {
		return err
	}
	if kernel != nil {
		b.audit = kernel
		defer func() {
			if err := kernel.restore(); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}()
	} else if b.has("auditd") || b.has("auditd-files") {
		return errors.New("find auditctl: not there; `apt-get install auditd`, or leave auditd out of -sides")
	}
	results, err := b.all(ctx)
	if err != nil {
		return err
	}
	rep := b.report(results)
	if b.has("goshawk") {
		m, err := matching(ctx)
		if err != nil {
			return err
		}
		rep.matched(m)
	}
	fmt.Print(rep.text())
	if len(rep.missed) > 0 && b.has("goshawk") {
		if rep.profile, err = b.profile(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	if o.section != "" {
		if err := rep.writeSection(o.section); err != nil {
			return err
		}
	}
	if o.out == "" {
		return nil
	}
	before, err := os.ReadFile(o.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(o.out, []byte(rep.markdown()+counted(string(before))), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s\n", o.out)
	return nil
}

// bench is one comparison.
type bench struct {
	options
	dir   string // all that is made
	order []side
	audit *audit // nil: the kernel's audit is not ours to set
	turns int
}

// program and starts are what puts a load on the host, and what that starts: of each load
// another name, by which its events are told apart.
func (b *bench) program(l load) string { return filepath.Join(b.dir, string(l)) }
func (b *bench) starts(l load) string  { return filepath.Join(b.dir, string(l)+"-starts") }

// watched is the directory that the storm writes to, and archive what is unpacked.
func (b *bench) watched() string { return filepath.Join(b.dir, "watched") }
func (b *bench) archive() string { return filepath.Join(b.dir, "archive.tar") }

// build compiles the load, and goshawk when none was given.
func (b *bench) build(ctx context.Context) error {
	for _, args := range [][]string{
		{"gcc", "-O2", "-Wall", "-static", "-o", b.program(process), "bench/load.c"},
		{"gcc", "-Os", "-Wall", "-static", "-nostdlib", "-o", b.starts(process), "bench/nothing.c"},
		{"gcc", "-O2", "-Wall", "-static", "-o", b.program(storm), "internal/audit/testdata/storm.c"}, // which starts itself
	} {
		if err := command(ctx, args...); err != nil {
			return err
		}
	}
	for _, l := range loads {
		if l == process || l == storm || l.ofFiles() {
			continue
		}
		if err := errors.Join(os.Link(b.program(process), b.program(l)), os.Link(b.starts(process), b.starts(l))); err != nil {
			return err
		}
	}
	if err := os.Mkdir(b.watched(), 0o755); err != nil {
		return err
	}
	if b.puts(unpacking) {
		goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("find Go's sources: %w", err)
		}
		if err := command(ctx, "tar", "cf", b.archive(), "-C", strings.TrimSpace(string(goroot)), "src"); err != nil {
			return err
		}
	}
	if b.binary != "" || !strings.Contains(b.sides, "goshawk") {
		return nil
	}
	b.binary = filepath.Join(b.dir, "goshawk")
	return command(ctx, "go", "build", "-trimpath", "-o", b.binary, "./cmd/goshawk")
}

// choose makes the sides asked for, bare first.
func (b *bench) choose() error {
	b.order = []side{&bare{}}
	for _, name := range strings.Split(b.sides, ",") {
		switch name {
		case "bare", "":
		case "goshawk":
			b.order = append(b.order, &goshawk{title: name, bench: b})
		case "goshawk-processes":
			b.order = append(b.order, &goshawk{title: name, bench: b, kinds: "exec,fork,exit"})
		case "goshawk-audit":
			b.order = append(b.order, &goshawk{title: name, bench: b, kinds: "exec,connect,accept,bind,file", audit: true})
		case "goshawk-files":
			b.order = append(b.order, &goshawk{title: name, bench: b, kinds: "file", files: true})
		case "auditd", "auditd-files":
			b.order = append(b.order, &auditd{bench: b, title: name, files: name != "auditd"})
		default:
			return fmt.Errorf("read -sides: no side is called %q; there are bare, goshawk, goshawk-processes, goshawk-audit, goshawk-files, auditd, auditd-files", name)
		}
	}
	return nil
}

func (b *bench) has(name string) bool {
	for _, s := range b.order {
		if s.name() == name {
			return true
		}
	}
	return false
}

// command runs a program and makes an error of what it says when it fails.
func command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
