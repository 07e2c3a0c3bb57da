package table

import (
	"context"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// openSocket is a socket and one descriptor that holds it; pid and fd are -1 for a socket
// that no process was seen to hold.
type openSocket struct {
	procfs.Socket
	pid, fd int
}

// processOpenSockets has a row for every descriptor of every socket. osquery shows one
// descriptor a socket, whichever it saw last, and so disagrees with itself when asked by
// pid about a socket that several processes share.
func processOpenSockets(fs procfs.FS) *schema.Table[*openSocket] {
	type row = *openSocket
	t := &schema.Table[row]{
		Name: "process_open_sockets",
		Doc:  "Sockets that processes hold open, of all network namespaces",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID, -1 when none was seen to hold it", schema.Additional).As(schema.Integer),
			schema.Int("fd", func(r row) *int { return &r.fd }, "Number of the file descriptor, -1 without a process"),
			schema.Int("socket", func(r row) *uint64 { return &r.Inode }, "Inode of the socket"),
			schema.Int("family", func(r row) *uint16 { return &r.Family }, "Address family: 1 unix, 2 IPv4, 10 IPv6, 17 packet").As(schema.Integer),
			schema.Int("protocol", func(r row) *uint16 { return &r.Protocol }, "Transport protocol: 6 TCP, 17 UDP, 255 raw").As(schema.Integer),
			address("local_address", "Local address", func(s *procfs.Socket) netip.AddrPort { return s.Local }),
			address("remote_address", "Remote address", func(s *procfs.Socket) netip.AddrPort { return s.Remote }),
			port("local_port", "Local port", func(s *procfs.Socket) netip.AddrPort { return s.Local }),
			port("remote_port", "Remote port", func(s *procfs.Socket) netip.AddrPort { return s.Remote }),
			schema.Str("path", func(r row) *string { return &r.Path }, "Name of a unix socket; abstract ones start with @"),
			schema.Str("state", func(r row) *string { return &r.State }, "State of a TCP socket"),
			netNamespace(),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		return openSockets(ctx, fs, t.Def(), q)
	}
	return t
}

// listeningPorts are the open sockets that have a name and no peer, as in osquery: among
// them UDP, raw and packet sockets, and unix sockets that are connected.
func listeningPorts(fs procfs.FS) *schema.Table[*openSocket] {
	type row = *openSocket
	t := &schema.Table[row]{
		Name: "listening_ports",
		Doc:  "Sockets that are bound to a port or name and have no peer, of all network namespaces",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.pid }, "Process (or thread) ID, -1 when none was seen to hold it").As(schema.Integer),
			port("port", "Local port", func(s *procfs.Socket) netip.AddrPort { return s.Local }),
			schema.Int("protocol", func(r row) *uint16 { return &r.Protocol }, "Transport protocol: 6 TCP, 17 UDP, 255 raw").As(schema.Integer),
			schema.Int("family", func(r row) *uint16 { return &r.Family }, "Address family: 1 unix, 2 IPv4, 10 IPv6, 17 packet").As(schema.Integer),
			address("address", "Address it is bound to", func(s *procfs.Socket) netip.AddrPort { return s.Local }),
			schema.Int("fd", func(r row) *int { return &r.fd }, "Number of the file descriptor, -1 without a process"),
			schema.Calc("socket", schema.BigInt, func(r row) schema.Value {
				if r.Family == unix.AF_UNIX {
					return schema.IntValue(0)
				}
				return schema.IntValue(int64(r.Inode))
			}, "Inode of the socket, 0 for a unix socket"),
			schema.Str("path", func(r row) *string { return &r.Path }, "Name of a unix socket"),
			netNamespace(),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		rows, err := openSockets(ctx, fs, t.Def(), q)
		return slices.DeleteFunc(rows, func(r row) bool { return !isListening(&r.Socket) }), err
	}
	return t
}

func isListening(s *procfs.Socket) bool {
	if s.Family == unix.AF_UNIX {
		return s.Path != ""
	}
	return s.Remote.Port() == 0
}

func address(name, doc string, at func(*procfs.Socket) netip.AddrPort) schema.Column[*openSocket] {
	return schema.Calc(name, schema.Text, func(r *openSocket) schema.Value {
		if a := at(&r.Socket).Addr(); a.IsValid() {
			return schema.TextValue(a.String())
		}
		return schema.TextValue("")
	}, doc)
}

func port(name, doc string, at func(*procfs.Socket) netip.AddrPort) schema.Column[*openSocket] {
	return schema.Calc(name, schema.Integer, func(r *openSocket) schema.Value {
		return schema.IntValue(int64(at(&r.Socket).Port()))
	}, doc)
}

func netNamespace() schema.Column[*openSocket] {
	return schema.Calc("net_namespace", schema.Text, func(r *openSocket) schema.Value {
		return schema.TextValue(strconv.FormatUint(r.NetNS, 10))
	}, "Inode of the network namespace")
}

// holder is a descriptor of a process.
type holder struct{ pid, fd int }

// socketScan joins the sockets of network namespaces with the descriptors of processes.
type socketScan struct {
	sockets procfs.Sockets
	holders map[uint64][]holder // by inode of the socket
}

// openSockets makes the rows. Asked by pid it reads those processes and the namespaces
// they are in, and further namespaces only for sockets not found there: a process may hold
// sockets of namespaces that it left, or was never in.
func openSockets(ctx context.Context, fs procfs.FS, def *schema.Def, q *schema.Query) ([]*openSocket, error) {
	d, err := fs.Open()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	pids, asked := pidsOf(def, q)
	if slices.Contains(pids, -1) { // sockets without a process are known when all are
		asked = false
	}
	if !asked {
		if pids, err = d.Pids(pids[:0]); err != nil {
			return nil, err
		}
	}
	s := socketScan{holders: make(map[uint64][]holder)}
	missing := make(map[uint64]bool)
	refused := refusals{table: def.Name}
	err = refused.each(ctx, d, pids, func(p *procfs.Process) error {
		holds := false
		err := p.FDs(func(fd int, target []byte) {
			if inode, ok := procfs.SocketInode(target); ok {
				s.holders[inode] = append(s.holders[inode], holder{p.PID, fd})
				missing[inode] = true
				holds = true
			}
		})
		if asked && !holds {
			return err
		}
		if refused := s.sockets.Visit(p); err == nil {
			err = refused
		}
		if asked {
			p.Netlink(func(inode uint64) { delete(missing, inode) })
		}
		return err
	})
	if err == nil && asked {
		err = s.find(ctx, d, missing)
	}
	if err != nil {
		return nil, err
	}
	refused.warn(q)
	return s.rows(!asked), nil
}

// find visits the namespaces of all processes until no socket is missing.
func (s *socketScan) find(ctx context.Context, d *procfs.Dir, missing map[uint64]bool) error {
	n := 0
	found := func() bool {
		for ; n < len(s.sockets.List); n++ {
			delete(missing, s.sockets.List[n].Inode)
		}
		return len(missing) == 0
	}
	if found() {
		return nil
	}
	pids, err := d.Pids(nil)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		// What cannot be read here was not asked for.
		if p, err := d.Process(pid); err == nil && s.sockets.Visit(p) == nil && found() {
			break
		}
	}
	return nil
}

// rows are all descriptors of all sockets, and with unheld also the sockets without one.
func (s *socketScan) rows(unheld bool) []*openSocket {
	var rows []*openSocket
	for i := range s.sockets.List {
		sock := &s.sockets.List[i]
		holders := s.holders[sock.Inode]
		for _, h := range holders {
			rows = append(rows, &openSocket{*sock, h.pid, h.fd})
		}
		if len(holders) == 0 && unheld {
			rows = append(rows, &openSocket{*sock, -1, -1})
		}
	}
	return rows
}
