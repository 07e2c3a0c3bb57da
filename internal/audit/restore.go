package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// journalName is the file, in the agent's state directory, that says what we change of the
// kernel's audit while we change it. It outlives a SIGKILL: the next start undoes what it
// says. A boot undoes everything.
const journalName = "audit.journal"

// setting is one value of the kernel's that we change.
type setting struct {
	name         string
	before, ours uint32
}

// journal is what we have changed, or are about to.
type journal struct {
	path     string
	boot     string
	pid      uint32
	start    uint64 // of that process, ticks since boot
	settings []setting
	rules    [][]byte // of ours, in the order of adding
	replaced [][]byte // of others, in their order, which are taken out meanwhile
}

// knobs are the settings that we may change.
var knobs = []struct {
	name string
	bit  uint32
	of   func(s *status) *uint32
}{
	{"enabled", setEnabled, func(s *status) *uint32 { return &s.enabled }},
	{"failure", setFailure, func(s *status) *uint32 { return &s.failure }},
	{"backlog_limit", setBacklog, func(s *status) *uint32 { return &s.backlogLimit }},
	{"backlog_wait_time", setBacklogWait, func(s *status) *uint32 { return &s.backlogWait }},
}

const journalHead = "goshawk audit journal 1"

func (j *journal) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nboot %s\nprocess %d %d\n", journalHead, j.boot, j.pid, j.start)
	for _, s := range j.settings {
		fmt.Fprintf(&b, "set %s %d %d\n", s.name, s.before, s.ours)
	}
	for _, r := range j.rules {
		fmt.Fprintf(&b, "rule %x\n", r)
	}
	for _, r := range j.replaced {
		fmt.Fprintf(&b, "replaced %x\n", r)
	}
	b.WriteString("end\n")
	return b.Bytes()
}

// write puts the journal on the disk, whole or not at all.
func (j *journal) write() error {
	if err := j.writeFile(); err != nil {
		return fmt.Errorf("write audit journal: %w", err)
	}
	return nil
}

func (j *journal) writeFile() error {
	dir := filepath.Dir(j.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, journalName+"-") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(j.text())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) remove() error {
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove audit journal: %w", err)
	}
	return nil
}

// maxJournal bounds what is read of a file that should hold some thirty rules.
const maxJournal = 16 << 20

// readJournal returns nil when there is none.
func readJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit journal: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read audit journal: %w", err)
	}
	if st.Size() > maxJournal {
		return nil, fmt.Errorf("read audit journal %q: %d bytes, more than %d", path, st.Size(), maxJournal)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read audit journal: %w", err)
	}
	j, err := parseJournal(b)
	if err != nil {
		return nil, fmt.Errorf("read audit journal %q: %w", path, err)
	}
	j.path = path
	return j, nil
}

func parseJournal(b []byte) (*journal, error) {
	j := &journal{}
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 64<<10)
	n, whole := 0, false
	for ; s.Scan(); n++ {
		words := strings.Split(s.Text(), " ")
		bad := fmt.Errorf("line %d is %.60q", n+1, s.Text())
		if n == 0 && s.Text() != journalHead || n > 0 && whole {
			return nil, bad
		}
		switch {
		case n == 0:
		case words[0] == "end":
			whole = true
		case words[0] == "boot" && len(words) == 2:
			j.boot = words[1]
		case words[0] == "process" && len(words) == 3:
			pid, err := strconv.ParseUint(words[1], 10, 32)
			start, err2 := strconv.ParseUint(words[2], 10, 64)
			if err != nil || err2 != nil {
				return nil, bad
			}
			j.pid, j.start = uint32(pid), start
		case words[0] == "set" && len(words) == 4:
			before, err := strconv.ParseUint(words[2], 10, 32)
			ours, err2 := strconv.ParseUint(words[3], 10, 32)
			known := slices.ContainsFunc(j.settings, func(s setting) bool { return s.name == words[1] })
			if err != nil || err2 != nil || known || !isKnob(words[1]) {
				return nil, bad
			}
			j.settings = append(j.settings, setting{words[1], uint32(before), uint32(ours)})
		case words[0] == "rule" && len(words) == 2:
			raw, err := hex.DecodeString(words[1])
			if err != nil {
				return nil, bad
			}
			// Only rules that are marked as ours: nobody makes us delete others with this file.
			r, ok := parseRule(raw)
			if _, _, is := r.ours(); !ok || !is {
				return nil, bad
			}
			j.rules = append(j.rules, raw)
		case words[0] == "replaced" && len(words) == 2:
			raw, err := hex.DecodeString(words[1])
			if err != nil {
				return nil, bad
			}
			if _, ok := parseRule(raw); !ok {
				return nil, bad
			}
			j.replaced = append(j.replaced, raw)
		default:
			return nil, bad
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !whole {
		return nil, errors.New("it has no end")
	}
	return j, nil
}

func isKnob(name string) bool {
	for _, k := range knobs {
		if k.name == name {
			return true
		}
	}
	return false
}

// alive reports whether the process that wrote the journal still runs.
func (j *journal) alive(fs procfs.FS) (bool, error) {
	dir, err := fs.Open()
	if err != nil {
		return false, err
	}
	defer dir.Close()
	o, ok := ownerOf(dir, j.pid)
	return ok && o.start == j.start, nil
}

// undo puts audit back as it was, and forgets the journal when that worked. A setting that
// somebody has changed meanwhile is theirs, and stays; and whoever owns audit by now wants
// it enabled. That its owner is not us any more is for the caller to see to.
func (j *journal) undo(c *control) error {
	errs := deleteRules(c, j.rules)
	if n, err := left(c, j.pid); err != nil {
		errs = append(errs, err)
	} else if n > 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("remove audit rules: %d are still there", n))
	}
	for _, raw := range j.replaced {
		switch err := c.do(msgAddRule, raw, nil); err {
		case nil, unix.EEXIST: // a start that failed, or somebody, has left it there
		case unix.EPERM: // for the others, too
			errs = append(errs, fmt.Errorf("put back audit rules: %w", err))
		default:
			errs = append(errs, fmt.Errorf("put back an audit rule: %w", err))
		}
	}
	now, err := c.status()
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("ask for the state of audit: %w", err))...)
	}
	owned := now.pid != 0 && now.pid != j.pid
	back, mask := now, uint32(0)
	for _, s := range j.settings {
		for _, k := range knobs {
			if k.name != s.name || *k.of(&now) != s.ours || s.ours == s.before || owned && k.bit == setEnabled {
				continue
			}
			*k.of(&back) = s.before
			mask |= k.bit
		}
	}
	if mask != 0 {
		if err := c.set(back, mask); err != nil {
			errs = append(errs, fmt.Errorf("put back audit's settings: %w", err))
		}
	}
	if len(errs) > 0 {
		if now.enabled == locked {
			return fmt.Errorf("audit was locked (auditctl -e 2) while goshawk ran; what it has set stays until the next boot: %w", errors.Join(errs...))
		}
		return errors.Join(errs...)
	}
	return j.remove()
}

// deleteRules takes rules out, the last first. Those that are not there, or that this
// kernel would never have taken (EINVAL), are no error.
func deleteRules(c *control, rules [][]byte) []error {
	var errs []error
	for _, raw := range slices.Backward(rules) {
		switch err := c.do(msgDelRule, raw, nil); err {
		case nil, unix.ENOENT, unix.EINVAL:
		case unix.EPERM: // for the others, too
			return append(errs, fmt.Errorf("remove audit rules: %w", err))
		default:
			errs = append(errs, fmt.Errorf("remove audit rule: %w", err))
		}
	}
	return errs
}

// left counts rules that a process has added and that are still there.
func left(c *control, pid uint32) (n int, err error) {
	rules, err := c.rules()
	if err != nil {
		return 0, fmt.Errorf("list audit rules: %w", err)
	}
	for _, raw := range rules {
		r, ok := parseRule(raw)
		if by, marked, is := r.ours(); ok && is && marked && by == pid {
			n++
		}
	}
	return n, nil
}
