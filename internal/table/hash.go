package table

import (
	"container/list"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// defaultReadMax is osquery's default of read_max.
const defaultReadMax = 50 << 20

// The digests that can be asked for.
const (
	digestMD5 = iota
	digestSHA1
	digestSHA256
	digestCount
)

var digestMakers = [digestCount]func() hash.Hash{md5.New, sha1.New, sha256.New}

// digests are in hexadecimal; "" for one not computed.
type digests [digestCount]string

// hashed is a row of the table hash. Its digests are computed when the first is asked
// for, so that a row which SQL throws away costs no reading.
type hashed struct {
	target
	fd    int // O_PATH
	scan  *hashScan
	q     *schema.Query
	done  bool
	known digests
}

// hashScan is what the rows of the table hash share.
type hashScan struct {
	env     *Env
	cache   hashCache
	columns [digestCount]int
}

// digest returns one digest, "" for a file that cannot be read or is too large, of which
// the user is warned.
func (h *hashed) digest(which int) string {
	if !h.done {
		h.done = true
		var want [digestCount]bool
		for i, c := range h.scan.columns {
			want[i] = h.q.Uses(c)
		}
		want[which] = true
		var err error
		if h.known, err = h.scan.sum(h.fd, want); err != nil {
			h.q.Warning(fmt.Sprintf("hash %q: %v", h.path, err))
		}
	}
	return h.known[which]
}

// sum computes the wanted digests of the file behind an O_PATH descriptor.
func (s *hashScan) sum(fd int, want [digestCount]bool) (digests, error) {
	limit := s.env.ReadMax
	if limit <= 0 {
		limit = defaultReadMax
	}
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return digests{}, err
	}
	if before.Size > limit {
		return digests{}, fmt.Errorf("%d bytes are more than read_max, %d", before.Size, limit)
	}
	key := keyOf(&before)
	known, complete := s.cache.get(key, want)
	if complete {
		return known, nil
	}
	file, err := openRegular(fd)
	if err != nil {
		return digests{}, err
	}
	defer unix.Close(file)
	var sums [digestCount]hash.Hash
	for i := range sums {
		if want[i] && known[i] == "" {
			sums[i] = digestMakers[i]()
		}
	}
	// The file may grow while it is read, and files of /proc say that they are empty.
	size, err := readInto(file, limit, sums[:])
	if err != nil {
		return digests{}, err
	}
	for i, h := range sums {
		if h != nil {
			known[i] = hex.EncodeToString(h.Sum(nil))
		}
	}
	// Kept is what the key will tell apart from what follows: not the files that a kernel
	// makes up while they are read (their size is wrong and their times stand still), and
	// none changed so lately that the next change may bear the same time.
	settled := time.Since(time.Unix(before.Ctim.Unix())) > 2*time.Second
	if unix.Fstat(file, &after) == nil && keyOf(&after) == key && size == before.Size && settled {
		s.cache.put(key, known)
	}
	return known, nil
}

// readInto feeds a file of at most limit bytes to the sums and returns its size. The
// descriptor does not block: what has no data yet (a trace pipe, the kernel's log) is an
// error.
func readInto(fd int, limit int64, sums []hash.Hash) (size int64, err error) {
	buf := make([]byte, 128<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return size, err
		case n == 0:
			return size, nil
		}
		if size += int64(n); size > limit {
			return size, fmt.Errorf("more than read_max, %d bytes", limit)
		}
		for _, h := range sums {
			if h != nil {
				h.Write(buf[:n])
			}
		}
	}
}

// fileKey identifies a content: whoever changes it changes ctime, which no one can set.
type fileKey struct {
	device, inode uint64
	size          int64
	mtime, ctime  unix.Timespec
}

func keyOf(st *unix.Stat_t) fileKey {
	return fileKey{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// hashCacheMax is osquery's default of hash_cache_max.
const hashCacheMax = 500

// hashCache keeps the digests of the files hashed last: a join of processes with hash
// asks for the same few programs again and again.
type hashCache struct {
	mu    sync.Mutex
	order list.List // of *cacheEntry, the last used in front
	byKey map[fileKey]*list.Element
}

type cacheEntry struct {
	key fileKey
	digests
}

// get returns the digests known of a file and whether all wanted are among them.
func (c *hashCache) get(key fileKey, want [digestCount]bool) (digests, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return digests{}, false
	}
	c.order.MoveToFront(e)
	known := e.Value.(*cacheEntry).digests
	for i, w := range want {
		if w && known[i] == "" {
			return known, false
		}
	}
	return known, true
}

func (c *hashCache) put(key fileKey, d digests) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[fileKey]*list.Element{}
	}
	if e := c.byKey[key]; e != nil {
		e.Value.(*cacheEntry).digests = d
		return
	}
	c.byKey[key] = c.order.PushFront(&cacheEntry{key, d})
	if c.order.Len() > hashCacheMax {
		delete(c.byKey, c.order.Remove(c.order.Back()).(*cacheEntry).key)
	}
}

func hashTable(env *Env) schema.Relation {
	type row = *hashed
	digest := func(name string, which int, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(h row) schema.Value { return schema.TextValue(h.digest(which)) }, doc).Collated("nocase")
	}
	t := newPathTable(env, "hash", "Hashes of the regular files that the query names by path or directory, up to read_max bytes each.", []schema.Column[row]{
		schema.Str("path", func(h row) *string { return &h.path }, "Path, as the query spells it", schema.Required, schema.Index, schema.Optimized),
		schema.Str("directory", func(h row) *string { return &h.directory }, "Directory, as the query spells it", schema.Required, schema.Optimized),
		digest("md5", digestMD5, "MD5 of the content; empty when it is too large or unreadable"),
		digest("sha1", digestSHA1, "SHA-1 of the content; empty when it is too large or unreadable"),
		digest("sha256", digestSHA256, "SHA-256 of the content; empty when it is too large or unreadable"),
		schema.Calc("pid_with_namespace", schema.Integer, func(h row) schema.Value { return schema.IntValue(h.pid) }, namespaceDoc, schema.Hidden, schema.Additional),
		schema.Calc("mount_namespace_id", schema.Text, func(h row) schema.Value { return schema.TextValue(h.mount) }, mountDoc, schema.Hidden),
	})
	scan := &hashScan{env: env}
	for i, name := range []string{"md5", "sha1", "sha256"} {
		scan.columns[i] = t.def.Column(name)
	}
	t.row = func(q *schema.Query, at target) (row, bool) {
		fd, err := at.open(at.path, true)
		if err != nil {
			return nil, false
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			unix.Close(fd)
			return nil, false
		}
		return &hashed{target: at, fd: fd, scan: scan, q: q}, true
	}
	t.drop = func(h row) { unix.Close(h.fd) }
	return t
}
