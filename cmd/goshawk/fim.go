package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/content"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
	"github.com/goshawk-project/goshawk/internal/state"
)

// fimOptions are the flags of fim baseline and fim diff.
type fimOptions struct {
	host
	watch, exclude []string
	configPath     string
	hash           []string
	maxBytes       int64
	format         string
}

func newFIM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fim",
		Short: "Take down how files are, and say what differs later",
		Long: `Take down how files are (type, permissions, owner, size, times, digest), and compare later, also
after a time in which no agent ran. What happens to files meanwhile, and who does it, is what
goshawk run --watch and the daemon tell.`,
		Example: `  goshawk fim baseline --watch '/etc/%%' --watch '/usr/bin/%'
  goshawk fim diff`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newFIMBaseline(), newFIMDiff())
	return cmd
}

func newFIMBaseline() *cobra.Command {
	o := &fimOptions{}
	cmd := &cobra.Command{
		Use:   "baseline",
		Short: "Take down how files are",
		Long: `Look at all files that --watch, or file_paths of an osquery configuration, names, and take down how
they are, in the place of an earlier baseline. It may be stopped: the same command goes on where
it was. Files change while they are looked at; each is taken down in one state that it had.`,
		Example: `  goshawk fim baseline --watch '/etc/%%' --exclude '/etc/mtab'
  goshawk fim baseline --config_path /etc/osquery/osquery.conf`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitPrivilege, exitBusy),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(o.baseline(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVar(&o.watch, "watch", nil, "files by a pattern, as of goshawk run (repeat)")
	f.StringArrayVar(&o.exclude, "exclude", nil, "files to leave out, by a pattern (repeat)")
	f.StringVar(&o.configPath, "config_path", "", "osquery configuration whose file_paths and exclude_paths are meant")
	f.StringSliceVar(&o.hash, "hash", []string{"sha256"}, "digests to take down, with commas: sha256 and, when named, sha1 and md5; none is none")
	f.Int64Var(&o.maxBytes, "read_max", 50<<20, "bytes of the largest file of which a digest is taken")
	o.host.flags(f)
	return cmd
}

func newFIMDiff() *cobra.Command {
	o := &fimOptions{}
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Say what differs from the baseline",
		Long: `Look at the files of the baseline again and print what was added, removed or changed, and in what.
The exit status is 1 when something differs.`,
		Example: `  goshawk fim diff
  goshawk fim diff --format json | jq -r 'select(.what == "changed") | .path'`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitPrivilege, exitBusy),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.format != "table" && o.format != "json" {
				return failf(exitUsage, "--format: no format is called %q; formats are table, json", o.format)
			}
			return failed(o.diff(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.format, "format", "table", "how to print: table, or json (an object a line)")
	o.host.flags(f)
	return cmd
}

// baseText is how a baseline was asked for.
type baseText struct {
	Watch, Exclude []selection.Rule
	Hash           []string
	MaxBytes       int64
	Taken          int64 // unix seconds; 0: not done yet
	Last           string
}

// fileText is one file of a baseline.
type fileText struct {
	Type   string `json:"type"`
	Mode   string `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime_ns"`
	CTime  int64  `json:"ctime_ns"`
	Inode  uint64 `json:"inode"`
	Link   string `json:"link,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	SHA1   string `json:"sha1,omitempty"`
	MD5    string `json:"md5,omitempty"`
	Error  string `json:"hash_error,omitempty"`
}

const (
	domainBase  = "fim"
	domainFiles = "fim_files"
	keyBase     = "baseline"
	commitEvery = 2_000 // files
)

// open opens the baselines, which one process at a time has.
func (o *fimOptions) open() (db *state.DB, lock *os.File, err error) {
	dir := filepath.Join(o.store(), "fim")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	if lock, err = os.Open(dir); err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, nil, failf(exitBusy, "another goshawk fim is at work in %s", dir)
	}
	if db, err = state.Open(state.Options{Dir: dir}); err != nil {
		lock.Close()
		return nil, nil, err
	}
	return db, lock, nil
}

// asked is what the flags ask for.
func (o *fimOptions) asked() (*baseText, error) {
	b := &baseText{Hash: o.hash, MaxBytes: o.maxBytes}
	for _, p := range o.watch {
		b.Watch = append(b.Watch, selection.Rule{Category: "watch", Pattern: p})
	}
	for _, p := range o.exclude {
		b.Exclude = append(b.Exclude, selection.Rule{Category: "watch", Pattern: p})
	}
	if o.configPath != "" {
		list, err := config.ReadFiles(o.configPath)
		if err != nil {
			return nil, err
		}
		c, err := config.Load(list, loadOptions(true))
		if err != nil {
			return nil, err
		}
		b.Watch, b.Exclude = append(b.Watch, rulesOf(c.FilePaths)...), append(b.Exclude, rulesOf(c.ExcludePaths)...)
	}
	if len(b.Watch) == 0 {
		return nil, failf(exitUsage, "no file is named: give --watch PATTERN, or --config_path with file_paths in it")
	}
	return b, nil
}

func (b *baseText) same(other *baseText) bool {
	return slices.Equal(b.Watch, other.Watch) && slices.Equal(b.Exclude, other.Exclude) && slices.Equal(b.Hash, other.Hash) && b.MaxBytes == other.MaxBytes
}

func (o *fimOptions) baseline(ctx context.Context, out, errOut io.Writer) (err error) {
	want, err := o.asked()
	if err != nil {
		return err
	}
	set, problems := selection.Compile(selection.Options{Watch: want.Watch, Exclude: want.Exclude, Resolve: selection.Resolve})
	if len(problems) > 0 {
		return failf(exitUsage, "%w", problems[0])
	}
	db, lock, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), lock.Close()) }()
	have, err := readBase(db)
	if err != nil {
		return err
	}
	if have != nil && have.Taken == 0 && have.same(want) {
		want.Last = have.Last
		fmt.Fprintf(errOut, "goshawk: going on after %q\n", want.Last)
	} else if err := db.Update(true, func(tx *state.Tx) error {
		old, err := tx.List(domainFiles)
		if err != nil {
			return err
		}
		for _, p := range old {
			if err := tx.Delete(domainFiles, p.Key); err != nil {
				return err
			}
		}
		return putBase(tx, want)
	}); err != nil {
		return err
	}
	s := newSurvey(set, want, errOut)
	defer s.close()
	var pending []state.Pair
	write := func() error {
		err := db.Update(true, func(tx *state.Tx) error {
			for _, p := range pending {
				if err := tx.Put(domainFiles, p.Key, p.Value); err != nil {
					return err
				}
			}
			return putBase(tx, want)
		})
		pending = pending[:0]
		return err
	}
	err = s.walk(ctx, want.Last, func(name string, f *fileText) error {
		text, err := json.Marshal(f)
		if err != nil {
			return err
		}
		pending = append(pending, state.Pair{Key: name, Value: string(text)})
		want.Last = name
		if len(pending) >= commitEvery {
			return write()
		}
		return nil
	})
	if err == nil {
		want.Taken = time.Now().Unix()
	}
	err = errors.Join(err, write())
	s.erase()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d files taken down\n", s.files)
	return nil
}

func readBase(db *state.DB) (*baseText, error) {
	text, ok, err := db.Get(domainBase, keyBase)
	if err != nil || !ok {
		return nil, err
	}
	b := &baseText{}
	if err := json.Unmarshal([]byte(text), b); err != nil {
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	return b, nil
}

func putBase(tx *state.Tx, b *baseText) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return tx.Put(domainBase, keyBase, string(text))
}

// difference is what fim diff prints of one file.
type difference struct {
	What   string    `json:"what"` // added, removed or changed
	Path   string    `json:"path"`
	Fields []string  `json:"fields,omitempty"`
	Before *fileText `json:"before,omitempty"`
	After  *fileText `json:"after,omitempty"`
}

func (o *fimOptions) diff(ctx context.Context, out, errOut io.Writer) (err error) {
	db, lock, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), lock.Close()) }()
	base, err := readBase(db)
	if err != nil {
		return err
	}
	if base == nil || base.Taken == 0 {
		return failf(exitFailed, "there is no complete baseline in %s: goshawk fim baseline takes one", o.store())
	}
	list, err := db.List(domainFiles)
	if err != nil {
		return err
	}
	before := make(map[string]*fileText, len(list))
	for _, p := range list {
		f := &fileText{}
		if err := json.Unmarshal([]byte(p.Value), f); err != nil {
			return fmt.Errorf("read baseline of %q: %w", p.Key, err)
		}
		before[p.Key] = f
	}
	set, _ := selection.Compile(selection.Options{Watch: base.Watch, Exclude: base.Exclude, Resolve: selection.Resolve})
	s := newSurvey(set, base, errOut)
	defer s.close()
	var found []difference
	err = s.walk(ctx, "", func(name string, f *fileText) error {
		old := before[name]
		delete(before, name)
		if old == nil {
			found = append(found, difference{What: "added", Path: name, After: f})
		} else if fields := old.differs(f); len(fields) > 0 {
			found = append(found, difference{What: "changed", Path: name, Fields: fields, Before: old, After: f})
		}
		return nil
	})
	s.erase()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		found = append(found, difference{What: "removed", Path: name, Before: before[name]})
	}
	slices.SortStableFunc(found, func(a, b difference) int { return strings.Compare(a.Path, b.Path) })
	if err := o.print(out, found); err != nil {
		return err
	}
	if len(found) > 0 {
		return failf(exitFailed, "%d of %d files differ from the baseline of %s", len(found), len(list), time.Unix(base.Taken, 0).Format(time.RFC3339))
	}
	return nil
}

func (o *fimOptions) print(out io.Writer, found []difference) error {
	if o.format == "json" {
		for i := range found {
			text, err := json.Marshal(&found[i])
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, d := range found {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", d.What, safe(d.Path), strings.Join(d.Fields, ","))
	}
	return tw.Flush()
}

// differs names what is different, but for the time of the last change of metadata, which every
// other difference brings with it.
func (f *fileText) differs(to *fileText) []string {
	var out []string
	for _, c := range []struct {
		name string
		same bool
	}{
		{"type", f.Type == to.Type}, {"mode", f.Mode == to.Mode}, {"uid", f.UID == to.UID}, {"gid", f.GID == to.GID},
		{"size", f.Size == to.Size || f.Type == "directory"}, {"mtime", f.MTime == to.MTime || f.Type == "directory"}, {"inode", f.Inode == to.Inode},
		{"link", f.Link == to.Link}, {"sha256", f.SHA256 == to.SHA256}, {"sha1", f.SHA1 == to.SHA1}, {"md5", f.MD5 == to.MD5},
	} {
		if !c.same {
			out = append(out, c.name)
		}
	}
	if len(out) == 0 && f.CTime != to.CTime && f.Type != "directory" {
		out = append(out, "ctime") // an attribute, or times that were set back
	}
	return out
}

// survey looks at files one by one, in the order of their names.
type survey struct {
	set    *selection.Set
	hasher *content.Hasher // nil: no digests
	screen io.Writer       // nil: none
	files  int
	told   time.Time
	begun  time.Time
}

func newSurvey(set *selection.Set, b *baseText, errOut io.Writer) *survey {
	s := &survey{set: set, begun: time.Now(), told: time.Now()}
	if !slices.Equal(b.Hash, []string{"none"}) {
		s.hasher = content.New(content.Options{MD5: slices.Contains(b.Hash, "md5"), SHA1: slices.Contains(b.Hash, "sha1"), MaxBytes: b.MaxBytes, Rate: 1 << 40})
	}
	if isTerminal(errOut) {
		s.screen = errOut
	}
	return s
}

func (s *survey) close() {
	if s.hasher != nil {
		s.hasher.Close()
	}
}

func (s *survey) show(name string) {
	if s.screen == nil || time.Since(s.told) < progressEvery {
		return
	}
	s.told = time.Now()
	fmt.Fprintf(s.screen, "\r%d files, %.0f s: %.60s\x1b[K", s.files, time.Since(s.begun).Seconds(), safe(name))
}

func (s *survey) erase() {
	if s.screen != nil {
		io.WriteString(s.screen, "\r\x1b[K")
	}
}

// walkOrder puts paths in the order in which a walk comes by: a directory, what is in it, and
// then what follows beside it.
func walkOrder(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// walk looks at each selected file that comes after last. What goes away meanwhile is not there.
func (s *survey) walk(ctx context.Context, last string, yield func(name string, f *fileText) error) error {
	var roots []string
	for _, p := range s.set.Prefixes() {
		if !p.Exclude {
			roots = append(roots, p.Path)
		}
	}
	slices.SortFunc(roots, walkOrder)
	done := ""
	for _, root := range roots {
		if done != "" && selection.Within(root, done) {
			continue // with the one before
		}
		done = root
		err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if d != nil && d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			s.show(name)
			before := last != "" && walkOrder(name, last) <= 0
			if d.IsDir() && (!s.set.Touches(name) || skipped(name) || before && !selection.Within(last, name)) {
				return filepath.SkipDir
			}
			if before {
				return nil
			}
			if _, ok := s.set.Match(name); !ok {
				return nil
			}
			f := s.look(name)
			if f == nil {
				return nil
			}
			s.files++
			return yield(name, f)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// skipped are the directories of the kernel's own doings.
func skipped(name string) bool { return name == "/proc" || name == "/sys" }

// look looks at one file; nil when it is gone.
func (s *survey) look(name string) *fileText {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return nil
	}
	f := &fileText{Mode: fmt.Sprintf("%04o", st.Mode&0o7777), UID: st.Uid, GID: st.Gid, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), Inode: st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.Type = "regular"
	case unix.S_IFDIR:
		f.Type = "directory"
	case unix.S_IFLNK:
		f.Type = "symlink"
		f.Link, _ = os.Readlink(name) // "" when it has just been replaced
	default:
		f.Type = "special"
	}
	if f.Type != "regular" || s.hasher == nil {
		return f
	}
	e := &event.File{Operation: "write", TargetPath: name, Inode: st.Ino, Mode: st.Mode, Size: uint64(st.Size), MTime: st.Mtim.Nano()}
	if s.hasher.Ask(e) {
		e = <-s.hasher.Done()
	}
	f.SHA256, f.SHA1, f.MD5, f.Error = e.SHA256, e.SHA1, e.MD5, e.HashError
	return f
}
