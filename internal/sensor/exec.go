package sensor

import (
	"os"
	"strings"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

var pageSize = uint64(os.Getpagesize())

const anyCut = uint32(bpf.GoshawkFlagFLAG_PATH_CUT | bpf.GoshawkFlagFLAG_CWD_CUT | bpf.GoshawkFlagFLAG_FILENAME_CUT)

// exec decodes rec_exec.
func (d *decoder) exec(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecExec](raw)
	if err != nil {
		return err
	}
	path, err1 := d.path(raw, r.Path, has(&r.Head, bpf.GoshawkFlagFLAG_PATH_CUT))
	cwd, err2 := d.path(raw, r.Cwd, has(&r.Head, bpf.GoshawkFlagFLAG_CWD_CUT))
	filename, err3 := span(raw, r.Filename)
	args, err4 := span(raw, r.Args)
	env, err5 := span(raw, r.Env)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
		return errShort
	}
	e := b.Add(event.KindExec).(*event.Exec)
	d.header(&e.Header, &r.Head)
	e.Path = path
	e.Cwd = cwd
	e.Filename = d.strings.get(filename)
	e.Args = string(args)
	e.ArgsLength = r.ArgsLength
	e.ArgsTruncated = has(&r.Head, bpf.GoshawkFlagFLAG_ARGS_CUT)
	e.PathTruncated = r.Head.Flags&anyCut != 0
	e.Memfd = has(&r.Head, bpf.GoshawkFlagFLAG_MEMFD)
	e.Deleted = r.Nlink == 0 && r.Inode != 0
	e.UpperLayer = has(&r.Head, bpf.GoshawkFlagFLAG_UPPER)
	e.OtherMount = has(&r.Head, bpf.GoshawkFlagFLAG_OTHER_MOUNT)
	e.Entered = has(&r.Head, bpf.GoshawkFlagFLAG_ENTERED)
	e.Inode, e.Mode = r.Inode, r.Mode
	e.OwnerUID, e.OwnerGID = r.OwnerUid, r.OwnerGid
	e.SUID, e.SGID, e.FSUID, e.FSGID = r.Suid, r.Sgid, r.Fsuid, r.Fsgid
	if d.proc != nil && e.PathTruncated {
		d.complete(e, &r.Head)
	}
	if has(&r.Head, bpf.GoshawkFlagFLAG_SCRIPT) ||
		has(&r.Head, bpf.GoshawkFlagFLAG_SCRIPT_UNKNOWN) && runsScript(e) {
		e.Interpreter = e.Path
		e.Script = join(e.Cwd, e.Filename)
	}
	if d.env != nil {
		e.Env = d.pick(env)
	}
	return nil
}

// join makes a file name absolute, without resolving links: what was asked for.
func join(cwd, name string) string {
	if strings.HasPrefix(name, "/") || name == "" || cwd == "" {
		return name
	}
	name = strings.TrimPrefix(name, "./")
	if strings.HasSuffix(cwd, "/") {
		return cwd + name
	}
	return cwd + "/" + name
}

// pick keeps the variables that were asked for.
func (d *decoder) pick(env []byte) string {
	var out strings.Builder
	for len(env) > 0 {
		end := 0
		for end < len(env) && env[end] != 0 {
			end++
		}
		name, _, found := strings.Cut(string(env[:end]), "=")
		if found && d.env[name] {
			out.Write(env[:end])
			out.WriteByte(0)
		}
		env = env[min(end+1, len(env)):]
	}
	return out.String()
}

// complete looks in /proc for the beginnings of paths whose ends the legacy programs have
// told: they take some 30 names. What is there counts only when it is the same process and
// ends as the kernel said.
func (d *decoder) complete(e *event.Exec, h *bpf.GoshawkRecHead) {
	dir, err := d.proc.Open()
	if err != nil {
		return
	}
	defer dir.Close()
	var stat procfs.Stat
	p, err := dir.Process(int(e.PID))
	if err != nil || p.Stat(&stat) != nil || e.Start-stat.StartTimeNs() >= tick {
		return
	}
	cut := h.Flags & anyCut
	whole := func(flag bpf.GoshawkFlag, path *string, now string, err error) {
		end := strings.TrimPrefix(*path, "...")
		if err == nil && has(h, flag) && strings.HasPrefix(now, "/") && strings.HasSuffix(now, end) {
			*path = now
			e.Fidelity = event.FidelityState
			cut &^= uint32(flag)
		}
	}
	exe, _, err := p.Exe()
	whole(bpf.GoshawkFlagFLAG_PATH_CUT, &e.Path, exe, err)
	cwd, err := p.Cwd()
	whole(bpf.GoshawkFlagFLAG_CWD_CUT, &e.Cwd, cwd, err)
	e.PathTruncated = cut != 0
}

// runsScript guesses whether the file asked for is a script, where the kernel side could not
// see: then the arguments are those that fs/binfmt_script.c makes, with the interpreter
// before the script's name, and perhaps one argument between. Interpreters of scripts may
// be scripts, four deep.
func runsScript(e *event.Exec) bool {
	name, rest, _ := strings.Cut(e.Args, "\x00")
	if name == e.Filename || e.Path == join(e.Cwd, e.Filename) {
		return false
	}
	for range 8 {
		if name, rest, _ = strings.Cut(rest, "\x00"); name == e.Filename && name != "" {
			return true
		}
	}
	return false
}
