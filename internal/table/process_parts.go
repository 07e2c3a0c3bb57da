package table

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// The tables here have a row for each part of each process. Without a constraint on pid
// they cover all processes, as osquery's do.

type processEnv struct {
	pid        int
	key, value string
}

// processEnvs differs from osquery in that an empty string does not end an environment:
// a process could hide all that follows behind one.
func processEnvs(fs procfs.FS) *schema.Table[*processEnv] {
	type row = *processEnv
	t := &schema.Table[row]{
		Name: "process_envs",
		Doc:  "Environment variables of each process, as given to execve unless written over",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID", schema.Index, schema.Optimized).As(schema.Integer),
			schema.Str("key", func(r row) *string { return &r.key }, "Name of the variable"),
			schema.Str("value", func(r row) *string { return &r.value }, "Value of the variable; the whole string when it holds no equals sign"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := eachProcess(ctx, fs, t.Def(), q, func(p *procfs.Process) error {
			env, cut, err := p.Environ()
			for _, e := range schema.SplitList(string(env)) {
				if e != "" {
					key, value := splitEnv(e)
					rows = append(rows, &processEnv{p.PID, key, value})
				}
			}
			if cut {
				return fmt.Errorf("environment of process %d is cut at %d bytes", p.PID, len(env))
			}
			return err
		})
		return rows, err
	}
	return t
}

// splitEnv parts a string at its first equals sign; osquery shows a string without one as
// both key and value.
func splitEnv(e string) (key, value string) {
	for i := range len(e) {
		if e[i] == '=' {
			return e[:i], e[i+1:]
		}
	}
	return e, e
}

type openFile struct {
	pid, fd int
	path    string
}

// processOpenFiles shows descriptors that have a path, as the kernel prints it.
func processOpenFiles(fs procfs.FS) *schema.Table[*openFile] {
	type row = *openFile
	t := &schema.Table[row]{
		Name: "process_open_files",
		Doc:  "Files that processes hold open",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID", schema.Index),
			schema.Int("fd", func(r row) *int { return &r.fd }, "Number of the file descriptor"),
			schema.Str("path", func(r row) *string { return &r.path }, "Path of the file, with (deleted) behind it when it was unlinked"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := eachProcess(ctx, fs, t.Def(), q, func(p *procfs.Process) error {
			return p.FDs(func(fd int, target []byte) {
				if isFile(target) {
					rows = append(rows, &openFile{p.PID, fd, string(target)})
				}
			})
		})
		return rows, err
	}
	return t
}

// isFile tells paths from sockets, pipes and anonymous inodes. osquery looks for these
// words anywhere in the path, so that a file can hide by its name.
func isFile(target []byte) bool {
	for _, kind := range [...]string{"socket:", "pipe:", "anon_inode:"} {
		if bytes.HasPrefix(target, []byte(kind)) {
			return false
		}
	}
	return true
}

type mapping struct {
	pid         int
	start, end  uint64
	permissions string
	offset      int64
	device      string
	inode       uint64
	path        string
	pseudo      bool
	deleted     bool
}

// processMemoryMap differs from osquery in that path is whole where it holds spaces.
func processMemoryMap(fs procfs.FS) *schema.Table[*mapping] {
	type row = *mapping
	t := &schema.Table[row]{
		Name: "process_memory_map",
		Doc:  "Memory mappings of each process",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID", schema.Index, schema.Optimized).As(schema.Integer),
			schema.Calc("start", schema.Text, func(r row) schema.Value { return hexAddress(r.start) }, "First virtual address, hexadecimal"),
			schema.Calc("end", schema.Text, func(r row) schema.Value { return hexAddress(r.end) }, "Virtual address after the last, hexadecimal"),
			schema.Str("permissions", func(r row) *string { return &r.permissions }, "r, w, x, and p for private or s for shared"),
			schema.Int("offset", func(r row) *int64 { return &r.offset }, "Offset into the file, bytes; -1 beyond 2^63"),
			schema.Str("device", func(r row) *string { return &r.device }, "Major and minor number of the file's device, hexadecimal"),
			schema.Int("inode", func(r row) *uint64 { return &r.inode }, "Inode of the file, 0 without one").As(schema.Integer),
			schema.Str("path", func(r row) *string { return &r.path }, "Path of the file, or the kind of memory in brackets"),
			schema.Bool("pseudo", func(r row) *bool { return &r.pseudo }, "1 when path names memory that is no file"),
			schema.Bool("deleted", func(r row) *bool { return &r.deleted }, "1 when the file was unlinked", schema.Hidden),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := eachProcess(ctx, fs, t.Def(), q, func(p *procfs.Process) error {
			return p.Maps(func(m *procfs.Map) {
				r := &mapping{
					pid:         p.PID,
					start:       m.Start,
					end:         m.End,
					permissions: string(m.Permissions),
					offset:      int64(m.Offset),
					device:      string(m.Device),
					inode:       m.Inode,
					path:        string(m.Path),
					pseudo:      m.Inode == 0 && len(m.Path) > 0,
					deleted:     m.Deleted,
				}
				if r.offset < 0 {
					r.offset = -1
				}
				rows = append(rows, r)
			})
		})
		return rows, err
	}
	return t
}

// hexAddress prints an address as maps does, with at least eight digits, after 0x.
func hexAddress(n uint64) schema.Value {
	const digits = "0123456789abcdef"
	var b [16]byte
	i := len(b)
	for n != 0 || len(b)-i < 8 {
		i--
		b[i] = digits[n&15]
		n >>= 4
	}
	return schema.TextValue("0x" + string(b[i:]))
}

type namespaces struct {
	pid int
	ns  procfs.Namespaces
}

// processNamespaces leaves out processes that have no namespaces any more (zombies) or
// whose namespaces the reader may not see.
func processNamespaces(fs procfs.FS) *schema.Table[*namespaces] {
	type row = *namespaces
	inode := func(name, doc string, at func(*procfs.Namespaces) uint64) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(r row) schema.Value {
			if n := at(&r.ns); n != 0 {
				return schema.TextValue(strconv.FormatUint(n, 10))
			}
			return schema.TextValue("")
		}, doc)
	}
	t := &schema.Table[row]{
		Name: "process_namespaces",
		Doc:  "Linux namespaces of each process",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID", schema.Index, schema.Optimized).As(schema.Integer),
			inode("cgroup_namespace", "Inode of the cgroup namespace", func(n *procfs.Namespaces) uint64 { return n.Cgroup }),
			inode("ipc_namespace", "Inode of the IPC namespace", func(n *procfs.Namespaces) uint64 { return n.IPC }),
			inode("mnt_namespace", "Inode of the mount namespace", func(n *procfs.Namespaces) uint64 { return n.Mnt }),
			inode("net_namespace", "Inode of the network namespace", func(n *procfs.Namespaces) uint64 { return n.Net }),
			inode("pid_namespace", "Inode of the PID namespace", func(n *procfs.Namespaces) uint64 { return n.PID }),
			inode("user_namespace", "Inode of the user namespace", func(n *procfs.Namespaces) uint64 { return n.User }),
			inode("uts_namespace", "Inode of the UTS namespace", func(n *procfs.Namespaces) uint64 { return n.UTS }),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := eachProcess(ctx, fs, t.Def(), q, func(p *procfs.Process) error {
			r := &namespaces{pid: p.PID}
			if err := p.Namespaces(&r.ns); err != nil {
				return err
			}
			rows = append(rows, r)
			return nil
		})
		return rows, err
	}
	return t
}
