package schedule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	spoolMemory = 1 << 20 // bytes of a run's output that are held in memory
	spoolMost   = 1 << 30 // and at all
)

var errTooLarge = errors.New("the results take more than 1 GiB")

// spool is the output of a run until it is committed: in memory, and from a megabyte on in a
// file without a name. The zero spool is empty.
type spool struct {
	dir  string // for the file; "" is the system's for temporary files
	buf  []byte
	file *os.File
	size int64 // in the file
}

// write appends what f appends.
func (s *spool) write(f func(dst []byte) []byte) error {
	s.buf = f(s.buf)
	if len(s.buf) < spoolMemory {
		return nil
	}
	if s.size+int64(len(s.buf)) > spoolMost {
		return errTooLarge
	}
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, "results-*")
		if err != nil {
			return fmt.Errorf("keep results: %w", err)
		}
		s.file = file
		if err := os.Remove(file.Name()); err != nil {
			return fmt.Errorf("keep results: %w", err)
		}
	}
	if _, err := s.file.WriteAt(s.buf, s.size); err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	s.size += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// len is how many bytes were written.
func (s *spool) len() int64 { return s.size + int64(len(s.buf)) }

// reader reads all that was written.
func (s *spool) reader() io.Reader {
	if s.file == nil {
		return bytes.NewReader(s.buf)
	}
	return io.MultiReader(io.NewSectionReader(s.file, 0, s.size), bytes.NewReader(s.buf))
}

// lines hands out what was written, in pieces of whole lines.
func (s *spool) lines(f func(lines []byte) error) error {
	r := s.reader()
	piece := make([]byte, 0, min(s.len(), 256<<10))
	for {
		n, err := io.ReadFull(r, piece[len(piece):cap(piece)])
		piece = piece[:len(piece)+n]
		if end := bytes.LastIndexByte(piece, '\n') + 1; end > 0 {
			if err := f(piece[:end]); err != nil {
				return err
			}
			piece = piece[:copy(piece, piece[end:])]
		} else if len(piece) == cap(piece) && n > 0 {
			piece = append(make([]byte, 0, 2*cap(piece)), piece...)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read kept results: %w", err)
		case n == 0:
			return nil
		}
	}
}

// reset empties s for use again.
func (s *spool) reset() {
	if s.file != nil {
		s.file.Close() // which has no name, and is gone
		s.file, s.size = nil, 0
	}
	if cap(s.buf) > 2*spoolMemory {
		s.buf = nil
	}
	s.buf = s.buf[:0]
}
