package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What we say to the kernel ourselves, rather than through a library: records must be read
// many at a time and without allocation, lengths are not what netlink(7) promises, and one
// library for Go has all three failure modes as 0. Numbers are those of linux/audit.h; a
// test compares them with that file.
const (
	msgGet       = 1000
	msgSet       = 1001
	msgAddRule   = 1011
	msgDelRule   = 1012
	msgListRules = 1013

	recUser      = 1005 // auditctl -m
	recLogin     = 1006
	recUserFirst = 1100 // records of programs: PAM, sshd, sudo …
	recUserLast  = 1199
	recSyscall   = 1300
	recConfig    = 1305 // CONFIG_CHANGE: a setting or rule of audit itself
	recEOE       = 1320
	recReplace   = 1329 // another process asks for our place
	recUringOp   = 1336
	recUser2     = 2100
	recUser2Last = 2999

	groupReadLog = 1 // AUDIT_NLGRP_READLOG

	setEnabled     = 0x01 // bits of status.mask
	setFailure     = 0x02
	setPID         = 0x04
	setBacklog     = 0x10
	setBacklogWait = 0x20

	featureBacklogWait = 0x02 // bit of status.features

	locked = 2 // of status.enabled: until the next boot nothing can be set

	failPrintk = 1 // of status.failure
	failPanic  = 2
)

// status is struct audit_status of linux/audit.h, but for its mask.
type status struct {
	enabled, failure, pid, rateLimit, backlogLimit uint32
	lost, backlog, features, backlogWait           uint32
}

const (
	statusLen    = 44 // of the struct, as Linux 5.9 made it
	statusLenOld = 32 // before 3.14: no backlogWait
)

func (s *status) append(dst []byte, mask uint32) []byte {
	for _, v := range [...]uint32{mask, s.enabled, s.failure, s.pid, s.rateLimit, s.backlogLimit, 0, 0, 0, s.backlogWait, 0} {
		dst = binary.NativeEndian.AppendUint32(dst, v)
	}
	return dst
}

func (s *status) parse(b []byte) error {
	if len(b) < statusLenOld {
		return fmt.Errorf("read audit status: %d bytes, want %d or more", len(b), statusLenOld)
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	*s = status{enabled: word(1), failure: word(2), pid: word(3), rateLimit: word(4), backlogLimit: word(5),
		lost: word(6), backlog: word(7)}
	if len(b) >= 40 {
		s.features, s.backlogWait = word(8), word(9)
	}
	return nil
}

// canSetWait reports whether the kernel knows how long to wait for a full backlog.
func (s *status) canSetWait() bool { return s.features&featureBacklogWait != 0 }

// replyTimeout is how long the kernel may take to answer. It makes lists in a thread of
// its own (audit_list_rules_send), which a busy machine runs late.
const replyTimeout = 10 * time.Second

// control is a socket for requests; records never arrive on it.
type control struct {
	fd  int
	seq uint32
	out []byte
	in  [16 << 10]byte
	// changes are those of audit's configuration that were made with it, of which the kernel
	// tells without saying whose they are.
	changes map[string]int
	changed time.Time // the last
}

// ownChangeWait is how long after a change its record may come.
const ownChangeWait = 10 * time.Second

// changing notes a change that is being made, as its record names it: add_rule, remove_rule,
// audit_enabled=1.
func (c *control) changing(what string) {
	if c.changes == nil {
		c.changes = map[string]int{}
	}
	c.changes[what]++
	c.changed = time.Now()
}

// own reports whether a change was made with this socket, once for each.
func (c *control) own(what string) bool {
	if c.changes[what] == 0 {
		return false
	}
	if time.Since(c.changed) > ownChangeWait {
		clear(c.changes)
		return false
	}
	c.changes[what]--
	return true
}

func openControl() (*control, error) {
	fd, err := openNetlink(0)
	if err != nil {
		return nil, err
	}
	return &control{fd: fd}, nil
}

// openNetlink opens a socket to audit. unix.EPROTONOSUPPORT means that this kernel has no
// audit, or was booted with audit=0.
func openNetlink(groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return -1, fmt.Errorf("open audit socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind audit socket: %w", err)
	}
	return fd, nil
}

func (c *control) close() error { return unix.Close(c.fd) }

// appendHeader appends a struct nlmsghdr for a payload of n bytes.
func appendHeader(dst []byte, n int, typ, flags uint16, seq uint32) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, uint32(unix.NLMSG_HDRLEN+n))
	dst = binary.NativeEndian.AppendUint16(dst, typ)
	dst = binary.NativeEndian.AppendUint16(dst, flags)
	dst = binary.NativeEndian.AppendUint32(dst, seq)
	return binary.NativeEndian.AppendUint32(dst, 0)
}

func send(fd int, msg []byte) error {
	for {
		err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// do sends a request and waits for its acknowledgement, and for replies when each is
// given: that returns whether it wants no more. Errors are the kernel's errno, bare.
func (c *control) do(typ uint16, payload []byte, each func(typ uint16, data []byte) (last bool)) error {
	c.seq++
	c.out = appendHeader(c.out[:0], len(payload), typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.seq)
	c.out = append(c.out, payload...)
	if err := send(c.fd, c.out); err != nil {
		return err
	}
	deadline := time.Now().Add(replyTimeout)
	acknowledged, done := false, each == nil
	for !acknowledged || !done {
		n, err := c.receive(deadline)
		if err != nil {
			return err
		}
		for b := c.in[:n]; len(b) > 0; {
			var typ uint16
			var seq uint32
			var data []byte
			if typ, seq, data, b, err = nextMessage(b); err != nil {
				return err
			}
			switch {
			case seq != c.seq: // late answer to a request that was given up
			case typ == unix.NLMSG_ERROR:
				if len(data) < 4 {
					return errors.New("read audit reply: an error without its number")
				}
				if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
					return unix.Errno(errno)
				}
				acknowledged = true
			case !done:
				done = each(typ, data)
			}
		}
	}
	switch typ {
	case msgAddRule:
		c.changing("add_rule")
	case msgDelRule:
		c.changing("remove_rule")
	}
	return nil
}

// nextMessage takes the first netlink message off b (struct nlmsghdr, netlink(7)).
func nextMessage(b []byte) (typ uint16, seq uint32, data, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return 0, 0, nil, nil, fmt.Errorf("read audit reply: %d bytes, less than a header", len(b))
	}
	length := int64(binary.NativeEndian.Uint32(b))
	if length < unix.NLMSG_HDRLEN || length > int64(len(b)) {
		return 0, 0, nil, nil, fmt.Errorf("read audit reply: a message of %d bytes in %d", length, len(b))
	}
	return binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]),
		b[unix.NLMSG_HDRLEN:length], b[min(len(b), int(length+3)&^3):], nil
}

// receive reads one datagram into c.in.
func (c *control) receive(deadline time.Time) (int, error) {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return 0, fmt.Errorf("read audit reply: none within %v", replyTimeout)
		}
		p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for audit reply: %w", err)
		}
		n, from, err := unix.Recvfrom(c.fd, c.in[:], 0)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err != nil:
			return 0, fmt.Errorf("read audit reply: %w", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid == 0 { // the kernel, not a process
			return n, nil
		}
	}
}

func (c *control) status() (status, error) {
	var s status
	var bad error
	err := c.do(msgGet, nil, func(typ uint16, data []byte) bool {
		if typ != msgGet {
			return false
		}
		bad = s.parse(data)
		return true
	})
	if err == nil {
		err = bad
	}
	return s, err
}

// set changes the fields of the kernel's status that mask names.
func (c *control) set(s status, mask uint32) error {
	for _, k := range knobs {
		if mask&k.bit != 0 {
			c.changing(fmt.Sprintf("audit_%s=%d", k.name, *k.of(&s)))
		}
	}
	return c.do(msgSet, s.append(nil, mask), nil)
}

// rules lists the kernel's rules in their order, each a struct audit_rule_data as it
// stands, so that it could be loaded again byte for byte.
func (c *control) rules() ([][]byte, error) {
	var all [][]byte
	err := c.do(msgListRules, nil, func(typ uint16, data []byte) bool {
		switch typ {
		case msgListRules:
			all = append(all, append([]byte(nil), data...))
		case unix.NLMSG_DONE:
			return true
		}
		return false
	})
	return all, err
}

const (
	inFlight = 32 // records read at once
	// longest is the most that a record can take: two paths of PATH_MAX in hex and room for
	// the rest. The kernel writes no such limit down.
	longest = 24 << 10
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// reader receives records, each a datagram of its own.
type reader struct {
	fd    int
	bufs  []byte
	msgs  [inFlight]mmsghdr
	iovs  [inFlight]unix.Iovec
	names [inFlight]unix.RawSockaddrNetlink
}

// openReader opens a socket for records with room for size bytes. It joins the group of
// readers when that is asked for; only register makes it the owner.
func openReader(group bool, size int) (*reader, error) {
	groups := uint32(0)
	if group {
		groups = 1 << (groupReadLog - 1)
	}
	fd, err := openNetlink(groups)
	if err != nil {
		return nil, err
	}
	// The first needs CAP_NET_ADMIN, the second is bounded by net.core.rmem_max.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	r := &reader{fd: fd, bufs: make([]byte, inFlight*longest)}
	for i := range r.msgs {
		r.iovs[i].Base = &r.bufs[i*longest]
		r.iovs[i].SetLen(longest)
		r.msgs[i].hdr.Iov = &r.iovs[i]
		r.msgs[i].hdr.SetIovlen(1)
		r.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	return r, nil
}

func (r *reader) close() error { return unix.Close(r.fd) }

// register makes this socket the one that the kernel sends records to, or with pid 0 no
// longer. The outcome is seen in the status: an acknowledgement would arrive among records.
func (r *reader) register(pid uint32) error {
	s := status{pid: pid}
	msg := appendHeader(nil, statusLen, msgSet, unix.NLM_F_REQUEST, 0)
	return send(r.fd, s.append(msg, setPID))
}

// read receives what is there, up to inFlight records, without waiting: 0 when there is
// nothing. unix.ENOBUFS says that records were lost since the last call. Since it never waits, Go's
// scheduler is not told of the call: that would wake its monitor each time, which in its first
// millisecond looks round every 20 us, at a quarter of all the CPU time of this process.
func (r *reader) read() (int, error) {
	for i := range r.msgs {
		r.msgs[i].hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.msgs[0])),
			inFlight, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// record returns the i-th message of the last read, valid until the next. Its text ends
// where the datagram ends: the length in the header leaves itself out when the kernel
// sends to the owner, and counts itself in when it sends to the group (audit_log_end).
func (r *reader) record(i int) (typ uint16, data []byte, ok bool) {
	m := &r.msgs[i]
	b := r.bufs[i*longest:][:min(int(m.n), longest)]
	if len(b) < unix.NLMSG_HDRLEN || m.hdr.Flags&unix.MSG_TRUNC != 0 || r.names[i].Pid != 0 {
		return 0, nil, false
	}
	return binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:], true
}

// filled returns how much of the socket's room is taken, 0 to 1, and 0 where the kernel
// does not tell (before 4.6).
func (r *reader) filled() float64 {
	var m [9]uint32 // SK_MEMINFO_*, linux/sock_diag.h
	size := uint32(unsafe.Sizeof(m))
	if _, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 || m[1] == 0 {
		return 0
	}
	return float64(m[0]) / float64(m[1]) // SK_MEMINFO_RMEM_ALLOC of SK_MEMINFO_RCVBUF
}
