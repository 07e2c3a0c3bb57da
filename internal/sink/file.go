package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Rotation says when a log file is put aside, and how many are kept.
type Rotation struct {
	Size  int64 // bytes; 0: never
	Files int   // put aside, the newest plain, the others compressed
}

// File is a log file that others may move away at any moment: it is opened for each write.
//
// A mark tells which file was written and how far. What a killed process has written beyond
// it is the beginning of what is written next, and is not written twice.
type File struct {
	Path     string
	Mode     fs.FileMode
	Rotation func() Rotation // nil: others do it
	Save     func(mark string) error

	started bool
	ended   bool // the file ends with a line's end
	id      fileID
	rest    []byte // written by the process before, to be met again
}

type fileID struct {
	dev, ino uint64
}

func markOf(id fileID, size int64) string { return fmt.Sprintf("%d %d %d", id.dev, id.ino, size) }

func parseMark(mark string) (id fileID, size int64, ok bool) {
	n, err := fmt.Sscanf(mark, "%d %d %d", &id.dev, &id.ino, &size)
	return id, size, n == 3 && err == nil && size >= 0
}

// maxRest bounds what is compared with what a killed process wrote: more than one write.
const maxRest = 8 << 20

// Write appends lines and returns the mark that goes with them.
func (f *File) Write(lines []byte, mark string) (string, error) {
	if f.Rotation != nil {
		if err := f.rotate(f.Rotation()); err != nil {
			return "", err
		}
	}
	file, err := os.OpenFile(f.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, f.Mode)
	if err != nil {
		return "", err
	}
	defer file.Close()
	id, size, err := f.look(file)
	if err != nil {
		return "", err
	}
	if !f.started {
		if err := f.resume(file, mark, id, size); err != nil {
			return "", err
		}
		f.started = true
	} else if id != f.id {
		f.rest = nil // somebody moved the file away
	}
	if n := min(len(f.rest), len(lines)); n > 0 && bytes.Equal(f.rest[:n], lines[:n]) {
		f.rest, lines, f.ended = f.rest[n:], lines[n:], true
		if len(lines) == 0 {
			return markOf(id, size-int64(len(f.rest))), nil
		}
	}
	f.rest = nil
	if id != f.id {
		f.id = id
		if size == 0 && f.Save != nil {
			if err := f.Save(markOf(id, 0)); err != nil {
				return "", err
			}
		}
	}
	if !f.ended {
		if size, err = endLine(file, size); err != nil {
			return "", err
		}
		f.ended = true
	}
	if n, err := file.Write(lines); err != nil {
		if n > 0 {
			// All of them come again: half a line would stay for ever.
			err = errors.Join(err, file.Truncate(size))
		}
		return "", err
	}
	return markOf(id, size+int64(len(lines))), nil
}

// look returns which file it is, and gives one that is new its mode, whatever the umask.
func (f *File) look(file *os.File) (id fileID, size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return id, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return id, 0, fmt.Errorf("%q is no regular file", f.Path)
	}
	if info.Size() == 0 && info.Mode().Perm() != f.Mode.Perm() {
		err = file.Chmod(f.Mode)
	}
	return fileID{uint64(st.Dev), st.Ino}, info.Size(), err
}

// resume finds what the process before wrote after its mark.
func (f *File) resume(file *os.File, mark string, id fileID, size int64) error {
	marked, at, ok := parseMark(mark)
	if !ok || marked != id {
		return nil
	}
	f.id = id
	if at >= size || size-at > maxRest {
		return nil
	}
	f.rest = make([]byte, size-at)
	_, err := io.ReadFull(io.NewSectionReader(file, at, size-at), f.rest)
	return err
}

// endLine ends a line that was left half written, and returns the size then.
func endLine(file *os.File, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	var last [1]byte
	if _, err := file.ReadAt(last[:], size-1); err != nil || last[0] == '\n' {
		return size, err
	}
	_, err := file.Write([]byte{'\n'})
	return size + 1, err
}

// aside is the name of the n-th file put aside, as osquery has it.
func (f *File) aside(n int) string {
	if n == 1 {
		return f.Path + ".1"
	}
	return fmt.Sprintf("%s.%d.zst", f.Path, n)
}

// rotate puts the file aside when it is large.
func (f *File) rotate(r Rotation) error {
	info, err := os.Lstat(f.Path)
	if err != nil || r.Size <= 0 || info.Size() < r.Size {
		return nil // there is none yet, or it may grow
	}
	kept := 0
	for exists(f.aside(kept + 1)) {
		kept++
	}
	for n := kept; n >= 2; n-- {
		if n >= max(r.Files, 1) {
			err = os.Remove(f.aside(n))
		} else {
			err = os.Rename(f.aside(n), f.aside(n+1))
		}
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	if kept >= 1 {
		if r.Files > 1 {
			err = f.compress(f.aside(1), f.aside(2))
		}
		if err == nil {
			err = os.Remove(f.aside(1))
		}
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	if err := os.Rename(f.Path, f.aside(1)); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// compress writes a file compressed under another name, whole or not at all.
func (f *File) compress(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	part := to + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, f.Mode)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(part))
			return
		}
		err = os.Rename(part, to)
	}()
	w, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return errors.Join(err, w.Close())
}
