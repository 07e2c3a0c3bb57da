package audit

import (
	"bytes"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// item is a PATH record: a file that the call met.
type item struct {
	number     int
	name       string
	named      bool
	nametype   nametype
	inode      uint64
	device     string // major:minor
	mode       uint32
	owner      uint32
	ownerGroup uint32
}

// nametype is what a call did with a name (nametype= of PATH, from Linux 3.9).
type nametype uint8

const (
	nameUntold nametype = iota
	nameNormal
	nameParent
	nameDeleted
	nameCreated
	nameUnknown
)

const maxItems = 64 // PATH records of one call that are read

// paths reads the PATH records of a bundle into d.items, in their order.
func (d *decoder) paths(g *bundle) {
	d.items = d.items[:0]
	for i := range g.records {
		r := &g.records[i]
		if r.typ != typePath || len(d.items) == maxItems {
			continue
		}
		if p := d.path(g.of(r)); p.number >= 0 && d.item(p.number) == nil {
			d.items = append(d.items, p)
		}
	}
}

func (d *decoder) path(text []byte) item {
	p := item{number: -1, owner: unset, ownerGroup: unset}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch string(x.key) {
		case "item":
			n, _ := integer(x.value)
			p.number = int(n)
		case "name":
			if b := x.untrusted(d.buf); len(b) > 0 {
				p.name, p.named = d.strings.get(b), true
			}
		case "inode":
			n, _ := integer(x.value)
			p.inode = uint64(n)
		case "dev":
			p.device = d.device(x.value)
		case "mode":
			p.mode, _ = octal(x.value)
		case "ouid":
			p.owner = uid(x.value)
		case "ogid":
			p.ownerGroup = uid(x.value)
		case "nametype", "objtype": // so called from Linux 3.16 to 4.7
			switch string(x.value) {
			case "NORMAL":
				p.nametype = nameNormal
			case "PARENT":
				p.nametype = nameParent
			case "DELETE":
				p.nametype = nameDeleted
			case "CREATE":
				p.nametype = nameCreated
			default:
				p.nametype = nameUnknown
			}
		}
	}
	return p
}

// device makes 253:1 of fd:01.
func (d *decoder) device(b []byte) string {
	major, minor, ok := bytes.Cut(b, []byte(":"))
	n, ok1 := hexNumber(major)
	m, ok2 := hexNumber(minor)
	if !ok || !ok1 || !ok2 {
		return ""
	}
	d.text = appendUint(append(appendUint(d.text[:0], n), ':'), m)
	return d.strings.get(d.text)
}

func appendUint(b []byte, n uint64) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

// cwd is the working directory; empty when the bundle does not tell it.
func (d *decoder) cwd(g *bundle) string {
	text, ok := g.find(typeCwd)
	if !ok {
		return ""
	}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		if string(x.key) == "cwd" {
			return d.untrusted(&x)
		}
	}
	return ""
}

// exec decodes execve and execveat.
func (d *decoder) exec(g *bundle) {
	c := &d.call
	if c.ended && !c.success {
		d.count(event.KindExec, callFailed)
		return
	}
	d.gained(g)
	e, _ := d.add(event.KindExec, g.stamp).(*event.Exec)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.SUID, e.SGID, e.FSUID, e.FSGID = c.suid, c.sgid, c.fsuid, c.fsgid
	e.Syscall = c.def.name
	e.Cwd = d.cwd(g)
	whole := d.arguments(g)
	e.Args = string(d.text)
	e.ArgsLength = uint64(len(d.text))
	e.ArgsTruncated = !whole

	d.paths(g)
	e.OwnerUID, e.OwnerGID = unset, unset
	first := d.item(0)
	if first == nil {
		return
	}
	e.Filename = first.name
	file := first
	if i := d.interpreter(e); i != nil {
		file = i
		e.Interpreter, e.Script = e.Path, joined(e.Cwd, first.name)
	}
	e.Inode, e.Mode, e.OwnerUID, e.OwnerGID = file.inode, file.mode, file.owner, file.ownerGroup
	if _, is := alive(c.exe); !is && c.exe != file.name {
		e.Deleted = true
		e.Memfd = strings.HasPrefix(e.Path, "/memfd:")
	}
}

// item returns the PATH record of that number, nil when it did not come.
func (d *decoder) item(number int) *item {
	for i := range d.items {
		if d.items[i].number == number {
			return &d.items[i]
		}
	}
	return nil
}

// interpreter returns the file that runs the script, nil when a binary was executed. The
// files of an exec are the one named, each interpreter of a script, and the loader of the
// last. An ELF file names one loader, so three files are a script's. Two may be as well,
// of an interpreter without a loader: then the kernel made it the first argument, and
// runs another file than the one named.
func (d *decoder) interpreter(e *event.Exec) *item {
	if len(d.items) < 2 {
		return nil
	}
	argv0, rest, _ := strings.Cut(e.Args, "\x00")
	var last *item
	for i := range d.items {
		if p := &d.items[i]; p.number > 0 && p.name == argv0 && p.name != "" {
			last = p
		}
	}
	if len(d.items) > 2 {
		if last != nil {
			return last
		}
		return d.item(1)
	}
	argv1, rest, _ := strings.Cut(rest, "\x00")
	argv2, _, _ := strings.Cut(rest, "\x00")
	name := d.items[0].name
	if last == nil || name == "" || name == e.Path || argv1 != name && argv2 != name {
		return nil
	}
	return last
}

// joined makes a file name absolute, without resolving links: what was asked for.
func joined(cwd, name string) string {
	if name == "" || name[0] == '/' || cwd == "" {
		return name
	}
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	switch {
	case name == "" || name == ".":
		return cwd
	case strings.HasSuffix(cwd, "/"):
		return cwd + name
	}
	return cwd + "/" + name
}

const maxArguments = 1 << 20 // bytes kept of a program's arguments

// arguments puts the arguments of a bundle's EXECVE records into d.text, each with a NUL
// behind it, and reports whether they are all there and whole. A long argument comes in
// parts, many arguments in many records:
//
//	argc=3 a0="sh" a1=612062 a2_len=9000 a2[0]=6161…
//	a2[1]=6262…
func (d *decoder) arguments(g *bundle) bool {
	d.text = d.text[:0]
	whole := !g.cut
	argc, next := int64(-1), int64(0) // next is the argument expected
	part := int64(0)                  // expected of the one before next; 0 when that came whole
	for i := range g.records {
		r := &g.records[i]
		if r.typ != typeExecve {
			continue
		}
		f := pairs{g.of(r)}
		for x, ok := f.next(); ok; x, ok = f.next() {
			if string(x.key) == "argc" {
				if n, ok := integer(x.value); ok {
					argc = n
				}
				continue
			}
			n, piece, ok := argument(x.key)
			if !ok {
				continue
			}
			if len(d.text)+len(x.value) > maxArguments {
				return false
			}
			switch {
			case piece > 0 && n == next-1 && piece == part && part > 0:
				d.text = d.text[:len(d.text)-1] // goes on
				part++
			case n == next && piece <= 0:
				next++
				part = piece + 1 // 0 when it is whole
			default: // something before it is missing
				whole = false
				next = n + 1
				part = max(piece, 0) + 1
				if piece < 0 {
					part = 0
				}
			}
			if x.quote == '"' {
				d.text = append(d.text, x.value...)
				whole = whole && !x.cut
			} else if more, ok := unhex(d.text, x.value[:len(x.value)&^1]); ok {
				d.text = more
				whole = whole && len(x.value)%2 == 0
			} else {
				d.text = append(d.text, x.value...)
				whole = false
			}
			d.text = append(d.text, 0)
		}
	}
	return whole && argc == next
}

// argument reads the key of an argument: a0, or a0[1] for a part; the part is -1 when it
// has none. It is false for anything else, as a0_len.
func argument(key []byte) (n, part int64, ok bool) {
	if len(key) < 2 || key[0] != 'a' {
		return 0, 0, false
	}
	n, rest, ok := digits(key[1:])
	if !ok {
		return 0, 0, false
	}
	if len(rest) == 0 {
		return n, -1, true
	}
	if rest[0] != '[' {
		return 0, 0, false
	}
	part, rest, ok = digits(rest[1:])
	return n, part, ok && len(rest) == 1 && rest[0] == ']'
}

func digits(b []byte) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && i < 9 && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + int64(b[i]-'0')
		i++
	}
	return n, b[i:], i > 0
}
