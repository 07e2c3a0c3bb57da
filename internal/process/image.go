package process

import (
	"strconv"
	"unicode/utf8"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// maxCmdline bounds the command line kept of a process for its descendants. Its own exec
// event has all of it; Uptycs keeps as much of an ancestor's.
const maxCmdline = 200

// newImage copies what an exec tells of a process. An event's strings may be slices of
// something large, so none of them is kept.
func (t *Table) newImage(e *event.Exec) *image {
	args := e.Args
	cut := len(args) > maxCmdline+1
	if cut {
		args = args[:maxCmdline]
	}
	b := append(t.buf[:0], e.Path...)
	pathEnd := len(b)
	for i := 0; i < len(args); i++ {
		c := args[i]
		if c == 0 {
			if i == len(args)-1 {
				break // the end of the last argument
			}
			c = ' '
		}
		b = append(b, c)
	}
	if cut {
		b = b[:pathEnd+wholeRunes(b[pathEnd:])]
	}
	cmdEnd := len(b)
	b = append(b, e.Comm...)
	s := string(b)
	t.buf = b
	return &image{path: s[:pathEnd], cmdline: s[pathEnd:cmdEnd], comm: s[cmdEnd:]}
}

// wholeRunes is the length of b without a character that was cut at its end.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

func (m *image) size() int64 {
	return imageBytes + int64(len(m.path)+len(m.cmdline)+len(m.comm)+len(m.json))
}

func (t *Table) hold(m *image) {
	if m == nil {
		return
	}
	if m.refs++; m.refs == 1 {
		t.bytes += m.size()
	}
}

func (t *Table) release(m *image) {
	if m == nil {
		return
	}
	if m.refs--; m.refs == 0 {
		t.bytes -= m.size()
	}
}

// setImage makes m what p runs.
func (t *Table) setImage(p *entry, m *image) {
	t.hold(m)
	t.release(p.image)
	p.image = m
	t.version++
	p.version = t.version
}

// setBefore makes m what p ran before its present image.
func (t *Table) setBefore(p *entry, m *image) {
	t.hold(m)
	t.release(p.before)
	p.before = m
}

// imageAt is what p ran at a time, nil when unknown. Rings are read one after the other,
// so a socket's record may come after the exec that followed it.
func (p *entry) imageAt(ntime uint64) *image {
	if ntime < p.since && ntime != 0 {
		return p.before
	}
	return p.image
}

// chain is the ancestors text that the children of a process share. It holds as long as
// the process and those above it are the ones it was made from.
type chain struct {
	text     string
	versions [maxLevels]uint64
}

// maxLevels is how many ancestors an exec event names.
const maxLevels = 6

func (t *Table) setChain(p *entry, c *chain) {
	if p.chain != nil {
		t.bytes -= chainBytes + int64(len(p.chain.text))
	}
	p.chain = c
	if c != nil {
		t.bytes += chainBytes + int64(len(c.text))
	}
}

// ancestors is the JSON array of p and those above it, nearest first. Text is encoded once
// for an image and joined once for a process; its children share the string.
func (t *Table) ancestors(p *entry) string {
	var up [maxLevels]*entry
	var versions [maxLevels]uint64
	n := 0
	for q := p; q != nil && n < maxLevels; q = t.parentOf(q) {
		up[n], versions[n] = q, q.version
		n++
	}
	if p.chain != nil && p.chain.versions == versions {
		return p.chain.text
	}
	b := append(t.buf[:0], '[')
	for _, q := range up[:n] {
		b = appendAncestor(b, q.pid, t.imageJSON(q.image))
	}
	if top := up[n-1]; n < maxLevels && top.ppid != 0 {
		b = appendAncestor(b, top.ppid, unknownImage)
	}
	b = append(b, ']')
	t.buf = b
	t.setChain(p, &chain{text: string(b), versions: versions})
	return p.chain.text
}

func appendAncestor(b []byte, pid uint32, rest string) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, `{"pid":`...)
	b = strconv.AppendUint(b, uint64(pid), 10)
	return append(b, rest...)
}

// unknownImage is the text after the pid of an ancestor of which nothing else is known.
const unknownImage = `,"path":"","cmdline":""}`

// imageJSON is the text of an ancestor after its pid.
func (t *Table) imageJSON(m *image) string {
	if m == nil {
		return unknownImage
	}
	if m.json == "" {
		b := schema.AppendString(append(t.tmp[:0], `,"path":`...), m.path)
		b = schema.AppendString(append(b, `,"cmdline":`...), m.cmdline)
		t.tmp = append(b, '}')
		m.json = string(t.tmp)
		t.bytes += int64(len(m.json))
	}
	return m.json
}
