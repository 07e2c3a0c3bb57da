package content

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// eventOn is what a source tells of a file that was written.
func eventOn(t testing.TB, name string) *event.File {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return &event.File{Operation: "write", Result: "ok", TargetPath: name, Inode: st.Ino, Mode: st.Mode,
		Device: fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), Size: uint64(st.Size), MTime: st.Mtim.Nano()}
}

// ask returns the event with what was found out.
func ask(t testing.TB, h *Hasher, e *event.File) *event.File {
	t.Helper()
	if !h.Ask(e) {
		return e
	}
	select {
	case got := <-h.Done():
		return got
	case <-time.After(30 * time.Second):
		t.Fatal("no answer")
		return nil
	}
}

func TestDigests(t *testing.T) {
	h := New(Options{MD5: true, SHA1: true, MaxBytes: 1 << 20})
	defer h.Close()
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	write := func(s, text string) string {
		if err := os.WriteFile(name(s), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name(s)
	}
	for _, text := range []string{"", "hello", strings.Repeat("x", 300_000)} {
		got := ask(t, h, eventOn(t, write("plain", text)))
		a, b, c := md5.Sum([]byte(text)), sha1.Sum([]byte(text)), sha256.Sum256([]byte(text))
		if got.MD5 != hex.EncodeToString(a[:]) || got.SHA1 != hex.EncodeToString(b[:]) || got.SHA256 != hex.EncodeToString(c[:]) || got.HashError != "" {
			t.Errorf("%d bytes: %+v", len(text), got)
		}
	}
	other := eventOn(t, write("other", "x"))
	if err := os.Link(name("other"), name("kept")); err != nil { // its inode's number stays taken
		t.Fatal(err)
	}
	if err := os.Remove(name("other")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name("plain"), name("other")); err != nil {
		t.Fatal(err)
	}
	replaced := eventOn(t, write("replaced", "old"))
	if err := os.Rename(write("new", "new"), name("replaced")); err != nil {
		t.Fatal(err)
	}
	gone := eventOn(t, write("gone", "x"))
	if err := os.Remove(name("gone")); err != nil {
		t.Fatal(err)
	}
	later := eventOn(t, write("later", "x"))
	write("later", "more")
	big := write("big", "")
	if err := os.Truncate(big, 1<<40); err != nil {
		t.Fatal(err)
	}
	fifo := name("fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := eventOn(t, fifo)
	pipe.Mode = 0 // as of a source that does not know
	swapped := filepath.Join(dir, "d", "f")
	if err := os.MkdirAll(filepath.Join(dir, "e"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("d/f", "mine")
	write("e/f", "theirs")
	inside := eventOn(t, swapped)
	if err := os.Rename(name("d"), name("was")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("e", name("d")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		e    *event.File
		want string
	}{{other, OtherFile}, {replaced, OtherFile}, {gone, Gone}, {later, Changed}, {eventOn(t, big), TooLarge}, {pipe, NotRegular}, {inside, OtherFile},
		{&event.File{Operation: "write", TargetPath: ".../f"}, Gone}, {&event.File{Operation: "write", TargetPath: "/dev/null"}, NotRegular}} {
		if got := ask(t, h, c.e); got.HashError != c.want || got.SHA256 != "" {
			t.Errorf("%s: error %q, want %q; digest %q", c.e.TargetPath, got.HashError, c.want, got.SHA256)
		}
	}
	for _, e := range []*event.File{{Operation: "chmod", TargetPath: "/x"}, {Operation: "write", Result: "EPERM"}, {Operation: "delete"}} {
		if h.Ask(e) {
			t.Errorf("%+v is looked at", e)
		}
	}
}

// TestRaces: while a file is written and replaced all the time, each digest is of a content that
// it had.
func TestRaces(t *testing.T) {
	h := New(Options{})
	defer h.Close()
	name := filepath.Join(t.TempDir(), "f")
	var texts []string
	valid := map[string]string{}
	for i := range 4 {
		text := strings.Repeat(string(rune('a'+i)), 200_000+i)
		sum := sha256.Sum256([]byte(text))
		texts = append(texts, text)
		valid[hex.EncodeToString(sum[:])] = text
	}
	if err := os.WriteFile(name, []byte(texts[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			text := texts[i%len(texts)]
			if i%2 == 0 { // in place: half of it is the old one for a moment
				if f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
					f.WriteString(text[:100_000])
					f.WriteString(text[100_000:])
					f.Close()
				}
			} else if os.WriteFile(name+".new", []byte(text), 0o600) == nil {
				os.Rename(name+".new", name)
			}
		}
	})
	outcomes := map[string]int{}
	for range 300 {
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil {
			continue
		}
		got := ask(t, h, &event.File{Operation: "write", TargetPath: name, Inode: st.Ino, Size: uint64(st.Size), MTime: st.Mtim.Nano()})
		outcomes[got.HashError]++
		if got.SHA256 == "" {
			continue
		}
		if text, ok := valid[got.SHA256]; ok && uint64(len(text)) != got.Size {
			t.Errorf("the digest is of %d bytes, the event says %d", len(text), got.Size)
		}
	}
	close(stop)
	writing.Wait()
	if outcomes[""]+outcomes[Changed]+outcomes[OtherFile]+outcomes[Gone] == 0 {
		t.Errorf("nothing was tried: %v", outcomes)
	}
	t.Log(outcomes)
}

// TestBusy: what finds no room is told without a digest, and at the end all come back.
func TestBusy(t *testing.T) {
	h := New(Options{Queue: 4, Rate: 1 << 10})
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, busy := 0, 0
	for range 10 {
		e := eventOn(t, name)
		if h.Ask(e) {
			taken++
		} else if e.HashError == Busy {
			busy++
		}
	}
	if busy == 0 || taken+busy != 10 {
		t.Errorf("%d taken, %d busy", taken, busy)
	}
	go h.Close()
	back := 0
	for e := range h.Done() {
		back++
		if e.SHA256 == "" && e.HashError != Stopped {
			t.Errorf("error %q", e.HashError)
		}
	}
	if back != taken {
		t.Errorf("%d came back of %d", back, taken)
	}
	sum := uint64(0)
	for _, c := range h.Counts() {
		sum += c.N
	}
	if sum != 10 {
		t.Errorf("%d counted: %+v", sum, h.Counts())
	}
}

// TestUnreadable: what the agent may not read, or whose reading fails, has no digest, and says so. Root
// may read nearly all; so the test runs itself as nobody.
func TestUnreadable(t *testing.T) {
	const variable = "GOSHAWK_UNREADABLE"
	secret := os.Getenv(variable)
	if secret == "" {
		dir := t.TempDir()
		secret = filepath.Join(dir, "secret")
		if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(secret, 0); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			for _, d := range []string{dir, filepath.Dir(dir)} {
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnreadable$", "-test.v")
			cmd.Dir, cmd.Env = "/", append(os.Environ(), variable+"="+secret)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
				t.Fatalf("as nobody: %v\n%s", err, out)
			}
			return
		}
	}
	h := New(Options{})
	defer h.Close()
	for _, name := range []string{secret, fmt.Sprintf("/proc/%d/mem", os.Getpid())} { // of that, nothing is at 0
		e := eventOn(t, name)
		e.MTime = 0
		if got := ask(t, h, e); got.HashError != Unreadable || got.SHA256 != "" {
			t.Errorf("%s: error %q, want %q; digest %q", name, got.HashError, Unreadable, got.SHA256)
		}
	}
}

// TestStuck: a file system that never answers keeps neither the events on other files nor the end.
func TestStuck(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this kernel has no FUSE: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("nobody", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	other := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := New(Options{Patience: 200 * time.Millisecond})
	began := time.Now()
	for range 3 { // the second and third are not looked at any more
		e := &event.File{Operation: "write", TargetPath: filepath.Join(dir, "f"), Device: "0:4711"}
		if got := ask(t, h, e); got.HashError != Stuck {
			t.Errorf("error %q, want %q", got.HashError, Stuck)
		}
	}
	if got := ask(t, h, eventOn(t, other)); got.SHA256 == "" {
		t.Errorf("another file: error %q", got.HashError)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	h.Ask(&event.File{Operation: "write", TargetPath: filepath.Join(dir, "g")})
	h.Close()
	unix.Close(fuse) // whoever waits gets ENOTCONN
}
