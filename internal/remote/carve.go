package remote

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Carve is a set of files to be sent to the server, as the table carves shows it.
type Carve struct {
	Time      int64  `json:"time"` // unix seconds of the request
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"` // bytes of the archive, -1 not known yet
	Path      string `json:"path"` // with commas
	Status    string `json:"status"`
	GUID      string `json:"carve_guid"`
	RequestID string `json:"request_id"`
}

// What osquery calls the stages of a carve.
const (
	carveScheduled = "SCHEDULED"
	carveStarting  = "STARTING"
	carvePending   = "PENDING"
	carveSuccess   = "SUCCESS"
	carveArchive   = "ARCHIVE FAILED"
	carvePost      = "DATA POST FAILED"
)

const (
	domainCarve   = "carves" // by GUID: a Carve as JSON
	carveAttempts = 3
	maxCarvePaths = 10_000
	maxBlock      = 16 << 20
)

// Carver sends files to the server. Its functions give what the flags say at the moment.
type Carver struct {
	Node            *Node
	Start, Continue func() string // endpoints
	BlockSize       func() int
	Compress        func() bool
	Expiry          func() time.Duration // for which what was done is told
	HashMax         func() int64         // size in bytes above which the archive is not hashed
	Root            string               // where the host's root directory is seen, "" for /
	Dir             string               // for the archive while it is sent

	wake chan struct{}
}

// Init makes c ready; call it before anything else.
func (c *Carver) Init() { c.wake = make(chan struct{}, 1) }

// Request has paths carved, and returns the GUID of the carve.
func (c *Carver) Request(paths []string, requestID string) (string, error) {
	if len(paths) > maxCarvePaths {
		return "", fmt.Errorf("carve: %d files, more than %d", len(paths), maxCarvePaths)
	}
	slices.Sort(paths)
	guid := newGUID()
	if requestID == "" {
		requestID = newGUID()
	}
	err := c.put(&Carve{
		Time: c.Node.Now().Unix(), Size: -1, Path: strings.Join(slices.Compact(paths), ","),
		Status: carveScheduled, GUID: guid, RequestID: requestID,
	})
	if err != nil {
		return "", fmt.Errorf("carve: %w", err)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return guid, nil
}

// newGUID is a random UUID (RFC 9562, version 4).
func newGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (c *Carver) put(carve *Carve) error {
	text, err := json.Marshal(carve)
	if err != nil {
		return err
	}
	return c.Node.State.Put(domainCarve, carve.GUID, string(text))
}

// List returns the carves there are, the oldest first.
func (c *Carver) List() ([]Carve, error) {
	list, err := c.Node.State.List(domainCarve)
	if err != nil {
		return nil, err
	}
	var out []Carve
	for _, p := range list {
		var carve Carve
		if err := json.Unmarshal([]byte(p.Value), &carve); err != nil {
			return nil, fmt.Errorf("read carve %s: %w", p.Key, err)
		}
		out = append(out, carve)
	}
	slices.SortStableFunc(out, func(a, b Carve) int { return int(min(max(a.Time-b.Time, -1), 1)) })
	return out, nil
}

// Run carves what is requested until ctx ends. What a process before has begun begins anew.
func (c *Carver) Run(ctx context.Context) {
	if list, err := c.List(); err == nil {
		for _, carve := range list {
			if carve.Status == carveStarting || carve.Status == carvePending {
				carve.Status = carveScheduled
				_ = c.put(&carve) // or it stays as it is, which is told
			}
		}
	}
	for ctx.Err() == nil {
		if err := c.once(ctx); err != nil && ctx.Err() == nil {
			c.Node.Logger.Warn(fmt.Sprintf("carve: %v", err))
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
}

// once carves all that is scheduled, and forgets what was done long ago.
func (c *Carver) once(ctx context.Context) error {
	list, err := c.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, carve := range list {
		switch {
		case carve.Status == carveScheduled:
			errs = append(errs, c.carve(ctx, &carve))
		case c.Node.Now().Unix()-carve.Time > int64(c.Expiry()/time.Second):
			errs = append(errs, c.Node.State.Delete(domainCarve, carve.GUID))
		}
	}
	return errors.Join(errs...)
}

// carve sends one carve's files.
func (c *Carver) carve(ctx context.Context, carve *Carve) error {
	set := func(status string) error {
		carve.Status = status
		return c.put(carve)
	}
	if err := set(carveStarting); err != nil {
		return err
	}
	file, err := c.archive(ctx, carve)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Join(fmt.Errorf("%s: %w", carve.GUID, err), set(carveArchive))
	}
	defer file.Close()
	if err := set(carvePending); err != nil {
		return err
	}
	if err := c.send(ctx, carve, file); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // it begins anew with the next process
		}
		return errors.Join(fmt.Errorf("%s: %w", carve.GUID, err), set(carvePost))
	}
	return set(carveSuccess)
}

// archive makes the archive in a file without a name.
func (c *Carver) archive(ctx context.Context, carve *Carve) (file *os.File, err error) {
	if file, err = os.CreateTemp(c.Dir, "carve-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err = os.Remove(file.Name()); err != nil {
		return nil, err
	}
	var out io.Writer = file
	var z *zstd.Encoder
	if c.Compress() {
		if z, err = zstd.NewWriter(file, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20)); err != nil {
			return nil, err
		}
		out = z
	}
	t := tar.NewWriter(out)
	for path := range strings.SplitSeq(carve.Path, ",") {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.add(t, path); err != nil {
			return nil, err
		}
	}
	if err = t.Close(); err != nil {
		return nil, err
	}
	if z != nil {
		if err = z.Close(); err != nil {
			return nil, err
		}
	}
	if carve.Size, err = file.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	carve.SHA256 = "-1"
	if carve.Size <= c.HashMax() {
		h := sha256.New()
		if _, err = io.Copy(h, io.NewSectionReader(file, 0, carve.Size)); err != nil {
			return nil, err
		}
		carve.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	return file, nil
}

// add puts a file into the archive. What is no regular file, or is not there, is left out,
// as in osquery; what grows meanwhile is cut, and what shrinks is filled with zeros.
func (c *Carver) add(t *tar.Writer, path string) error {
	f, err := os.OpenFile(filepath.Join(c.Root, path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	err = t.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path, "/"), Size: info.Size(), Mode: int64(info.Mode().Perm()),
		ModTime: info.ModTime(), Format: tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(f, info.Size()))
	if err != nil {
		return fmt.Errorf("copy %q: %w", path, err)
	}
	_, err = io.CopyN(t, zeros{}, info.Size()-n)
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// send posts the archive in blocks.
func (c *Carver) send(ctx context.Context, carve *Carve, file *os.File) error {
	size := min(max(c.BlockSize(), 1), maxBlock)
	blocks := (carve.Size + int64(size) - 1) / int64(size)
	session := ""
	err := c.Node.again(ctx, carveAttempts, func() error {
		a, _, err := c.Node.call(ctx, c.Start(), func(key string) []byte {
			o := &object{}
			o.number("block_count", blocks)
			o.number("block_size", int64(size))
			o.number("carve_size", carve.Size)
			o.text("carve_id", carve.GUID)
			o.text("request_id", carve.RequestID)
			o.text("node_key", key)
			return o.bytes()
		}, false, maxAnswer)
		if err != nil {
			return err
		}
		if session = a.string("session_id"); session == "" {
			return errors.New("no session_id received from remote endpoint")
		}
		return nil
	})
	if err != nil {
		return err
	}
	block := make([]byte, size)
	for i := range blocks {
		n, err := file.ReadAt(block, i*int64(size))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var body bytes.Buffer
		o := &object{}
		o.number("block_id", i)
		o.text("session_id", session)
		o.text("request_id", carve.RequestID)
		o.text("data", base64.StdEncoding.EncodeToString(block[:n]))
		body.Write(o.bytes())
		err = c.Node.again(ctx, carveAttempts, func() error {
			_, _, err := c.Node.call(ctx, c.Continue(), func(string) []byte { return body.Bytes() }, false, maxAnswer)
			return err
		})
		if err != nil {
			return fmt.Errorf("block %d of %d: %w", i, blocks, err)
		}
	}
	return nil
}
