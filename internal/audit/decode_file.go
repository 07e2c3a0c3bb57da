package audit

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// file decodes the calls on files.
func (d *decoder) file(g *bundle) {
	c := &d.call
	if !d.wanted[event.KindFile] {
		d.count(event.KindFile, notAsked)
		return
	}
	d.paths(g)
	if len(d.items) < c.items {
		// Which of several names is missing decides what is true of the others.
		d.count(event.KindFile, lostIncomplete)
		return
	}
	var from, to *item
	if c.def.two {
		from, to = d.twoNames()
	} else {
		from = d.oneName()
	}
	if from == nil && to == nil && c.success {
		d.count(event.KindFile, lostIncomplete)
		return
	}
	e := d.add(event.KindFile, g.stamp).(*event.File)
	d.caller(&e.Header)
	e.SUID, e.SGID, e.FSUID, e.FSGID = c.suid, c.sgid, c.fsuid, c.fsgid
	e.OwnerUID, e.OwnerGID = unset, unset
	e.Operation, e.Result = c.def.op, c.result()
	e.Syscall = c.def.name
	if c.known&hasUring != 0 {
		e.Syscall = "io_uring:" + c.def.name
	}
	e.Category = category(c.key)
	e.Cwd = d.cwd(g)
	e.Argument = d.fileArgument(g)
	if from != nil {
		e.TargetPath = d.named(e, from, c.def.at)
		e.Device, e.Inode, e.Mode = from.device, from.inode, from.mode
		e.OwnerUID, e.OwnerGID = from.owner, from.ownerGroup
		if e.Operation == "open" && from.nametype == nameCreated {
			e.Operation = "create"
		}
	}
	if to != nil {
		e.DestinationPath = d.named(e, to, c.def.at2)
	}
	if e.Operation == "symlink" && from != nil {
		e.TargetPath = from.name // text of the link, which is no file that was met
	}
}

// oneName finds the file that a call with one name was about.
func (d *decoder) oneName() *item {
	var best *item
	for i := range d.items {
		p := &d.items[i]
		switch {
		case p.nametype == nameParent:
		case best == nil, p.nametype == nameCreated || p.nametype == nameDeleted, best.nametype == nameUntold:
			best = p
		}
	}
	return best
}

// twoNames finds what a call with two names went from and to. Before Linux 3.9 records do
// not say which is which; then directories come first.
func (d *decoder) twoNames() (from, to *item) {
	last := len(d.items) - 1
	if last >= 0 && d.items[last].nametype == nameUntold {
		if last == 0 {
			return nil, &d.items[0]
		}
		return &d.items[min(2, last-1)], &d.items[last]
	}
	for i := range d.items {
		switch p := &d.items[i]; p.nametype {
		case nameCreated:
			if to == nil {
				to = p
			}
		case nameDeleted, nameNormal, nameUnknown:
			if from == nil {
				from = p
			} else if to == nil && p.nametype != nameDeleted {
				to = p
			}
		}
	}
	return from, to
}

// named is the path of a file that a call named, or reached through a descriptor. The
// argument that holds the descriptor of its directory is at-1. Names are as the caller
// gave them: links in them are not resolved.
func (d *decoder) named(e *event.File, p *item, at uint8) string {
	c := &d.call
	if !p.named {
		if c.def.fd && c.known&hasUring == 0 && d.opt.FDPath != nil {
			if path := d.opt.FDPath(c.pid, c.signed(0), p.device, p.inode); path != "" {
				e.Fidelity = event.FidelityState
				return path
			}
		}
		return ""
	}
	if p.name[0] == '/' {
		return p.name
	}
	switch {
	case c.known&hasUring != 0 && at > 0:
		return ".../" + p.name // its record does not hold the directory
	case at == 0 || c.signed(int(at-1)) == unix.AT_FDCWD:
		return joined(e.Cwd, p.name)
	}
	if dir := d.directory(c.signed(int(at-1)), p); dir != "" {
		e.Fidelity = event.FidelityState
		return joined(dir, p.name)
	}
	return ".../" + strings.TrimPrefix(p.name, "./")
}

// directory is the path of a directory that a call named by a descriptor; empty when it is
// not known for certain. A name without directories in it is right below, and the record
// of its parent tells that directory's inode.
func (d *decoder) directory(fd int32, p *item) string {
	if d.opt.FDPath == nil || strings.Contains(strings.TrimRight(p.name, "/"), "/") {
		return ""
	}
	for i := range d.items {
		q := &d.items[i]
		if q.nametype == nameParent && q.device == p.device && q.inode != 0 {
			if path := d.opt.FDPath(d.call.pid, fd, q.device, q.inode); path != "" {
				return path
			}
		}
	}
	return ""
}

// category is the first key of the rules that a call met which is not ours: who added
// such a rule named it so.
func category(key string) string {
	for k := range strings.SplitSeq(key, "\x01") {
		if k != ruleKey {
			return k
		}
	}
	return ""
}

// fileArgument shows what a call was given beside names.
func (d *decoder) fileArgument(g *bundle) string {
	c := &d.call
	if c.known&hasUring != 0 {
		return ""
	}
	b := d.text[:0]
	switch c.def.form {
	case asFlags:
		b = appendOpenFlags(b, c.arch, c.args[c.def.flags])
	case asMode:
		b = strconv.AppendUint(append(b, '0'), c.args[c.def.flags]&0o7777, 8)
	case asOwners:
		// The 16-bit calls of 32-bit programs have -1 in as many bits.
		owner := func(n uint64) int64 {
			switch {
			case int32(uint32(n)) == -1 || c.arch == archI386 && !strings.HasSuffix(c.def.name, "32") && uint16(n) == 1<<16-1:
				return -1
			}
			return int64(uint32(n))
		}
		b = strconv.AppendInt(b, owner(c.args[c.def.flags]), 10)
		b = strconv.AppendInt(append(b, ':'), owner(c.args[c.def.flags+1]), 10)
	case asLength:
		n := c.args[1]
		if strings.HasSuffix(c.def.name, "64") { // in two registers, on ARM in an even one and the next
			low := 1
			if c.arch == archARM {
				low = 2
			}
			n = uint64(uint32(c.args[low])) | c.args[low+1]<<32
		}
		b = strconv.AppendInt(b, int64(n), 10)
	default:
		switch c.def.name {
		case "creat":
			return "O_WRONLY|O_CREAT|O_TRUNC"
		case "openat2":
			text, ok := g.find(typeOpenat2)
			if !ok {
				return ""
			}
			f := pairs{text}
			for x, ok := f.next(); ok; x, ok = f.next() {
				if string(x.key) == "oflag" {
					n, _ := octal(x.value)
					b = appendOpenFlags(b, c.arch, uint64(n))
				}
			}
		}
	}
	d.text = b
	return d.strings.get(b)
}

// genericFlags are the flags of open(2) that have the same value on all four
// architectures (include/uapi/asm-generic/fcntl.h); the others add those that have not.
var (
	genericFlags = event.Flags{
		{0o100, "O_CREAT"}, {0o200, "O_EXCL"}, {0o400, "O_NOCTTY"}, {0o1000, "O_TRUNC"}, {0o2000, "O_APPEND"},
		{0o4000, "O_NONBLOCK"}, {0o4010000, "O_SYNC"}, {0o10000, "O_DSYNC"}, {0o1000000, "O_NOATIME"},
		{0o2000000, "O_CLOEXEC"}, {0o10000000, "O_PATH"},
	}
	x86Flags = slices.Concat(genericFlags, event.Flags{
		{0o20200000, "O_TMPFILE"}, {0o40000, "O_DIRECT"}, {0o200000, "O_DIRECTORY"}, {0o400000, "O_NOFOLLOW"},
	})
	armFlags = slices.Concat(genericFlags, event.Flags{
		{0o20040000, "O_TMPFILE"}, {0o200000, "O_DIRECT"}, {0o40000, "O_DIRECTORY"}, {0o100000, "O_NOFOLLOW"},
	})
)

func appendOpenFlags(b []byte, arch uint32, flags uint64) []byte {
	flags = uint64(uint32(flags))
	b = append(b, [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[flags&3]...)
	own, largeFile := x86Flags, uint64(0o100000)
	if arch == archARM || arch == archAArch64 {
		own, largeFile = armFlags, 0o400000
	}
	return own.Append(b, flags&^(3|largeFile))
}
