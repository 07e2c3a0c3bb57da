package table

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// What became of a call, in the words of socket_events.status.
const (
	succeeded  = "succeeded"
	failed     = "failed"
	inProgress = "in_progress"
	noClient   = "no_client"
)

// socketEvents is osquery's socket_events, which it fills from the audit subsystem:
// connects, binds and accepts.
func socketEvents(o EventOptions) *eventTable {
	kinds := []event.ID{event.KindConnect, event.KindAccept, event.KindBind}
	if o.OmitAccept {
		kinds = []event.ID{event.KindConnect, event.KindBind}
	}
	return &eventTable{
		name:     "socket_events",
		doc:      "Sockets connected, bound and accepted, as osquery's audit subsystem tells them",
		kinds:    kinds,
		columns:  [][]event.Column{over(slices.Concat(socketEventColumns, additions[*event.Socket](), additionalTime[*event.Socket]()))},
		keep:     o.keepSocket,
		keepUses: []string{"family_number", "result"},
	}
}

// keepSocket reports whether osquery's tables show e.
func (o EventOptions) keepSocket(e event.Event) bool {
	s := e.(*event.Socket)
	switch s.FamilyNumber {
	case unix.AF_INET, unix.AF_INET6:
	case unix.AF_UNIX:
		if !o.AllowUnix {
			return false
		}
	default:
		return false
	}
	switch outcome(s) {
	case failed:
		return o.AllowFailed
	case noClient:
		return o.AllowNullAccept
	}
	return true
}

// outcome is what became of a call; empty when that is not known.
func outcome(e *event.Socket) string {
	switch e.Result {
	case "":
		return ""
	case "ok":
		return succeeded
	case "in_progress", "EINPROGRESS":
		return inProgress
	case "EAGAIN", "EWOULDBLOCK":
		if e.Kind == event.KindAccept {
			return noClient
		}
	}
	return failed
}

var socketEventColumns = []schema.Column[*event.Socket]{
	schema.Calc("action", schema.Text, socketAction, "What was done: bind, connect or accept").From("kind_id"),
	schema.Int("pid", func(e *event.Socket) *uint32 { return &e.PID }, "Process").From("pid"),
	schema.Str("path", func(e *event.Socket) *string { return &e.Path }, "Executable of the process").From("path"),
	schema.Calc("fd", schema.Text, fdHex, "File descriptor, hexadecimal; empty when not known").From("fd"),
	schema.Int("auid", func(e *event.Socket) *uint32 { return &e.AUID }, "Login user, 4294967295 when none logged in").From("auid"),
	schema.Int("family", func(e *event.Socket) *uint16 { return &e.FamilyNumber }, "Address family number (AF_*)").As(schema.Integer).From("family_number"),
	schema.Int("protocol", func(e *event.Socket) *uint16 { return &e.ProtoNumber }, "Protocol number (IPPROTO_*)", schema.Hidden).As(schema.Integer).From("protocol_number"),
	schema.Calc("local_address", schema.Text, func(e *event.Socket) schema.Value { return expanded(e.LocalAddress) }, "Own address; of IPv6 all eight groups").From("local_address"),
	schema.Calc("remote_address", schema.Text, func(e *event.Socket) schema.Value { return expanded(e.RemoteAddress) }, "Peer's address; of IPv6 all eight groups").From("remote_address"),
	schema.Int("local_port", func(e *event.Socket) *uint16 { return &e.LocalPort }, "Own port, 0 when not known").As(schema.Integer).From("local_port"),
	schema.Int("remote_port", func(e *event.Socket) *uint16 { return &e.RemotePort }, "Peer's port, 0 when not known").As(schema.Integer).From("remote_port"),
	schema.Str("socket", func(e *event.Socket) *string { return &e.SocketPath }, "Path of a unix socket, @name when abstract", schema.Hidden).From("socket_path"),
	schema.Time("time", func(e *event.Socket) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time"),
	schema.Calc("uptime", schema.BigInt, func(e *event.Socket) schema.Value { return uptimeOf(&e.Header) }, "When it happened, seconds since boot").From("ntime"),
	schema.Calc("eid", schema.Text, func(e *event.Socket) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
	schema.Calc("success", schema.Integer, func(e *event.Socket) schema.Value { return schema.BoolValue(outcome(e) == succeeded) }, "1 when it succeeded; see status", schema.Hidden).From("kind_id", "result"),
	schema.Calc("status", schema.Text, func(e *event.Socket) schema.Value { return schema.TextValue(outcome(e)) }, "What became of it: succeeded, failed, in_progress, or no_client of an accept").From("kind_id", "result"),
}

func socketAction(e *event.Socket) schema.Value { return schema.TextValue(e.Kind.String()) }

func fdHex(e *event.Socket) schema.Value {
	if e.FD < 0 {
		return schema.TextValue("")
	}
	return schema.TextValue(strconv.FormatInt(int64(e.FD), 16))
}

// expanded writes an IPv6 address with all its groups, which is how osquery prints those
// that audit gives it as digits.
func expanded(address string) schema.Value {
	if strings.Contains(address, ":") {
		if a, err := netip.ParseAddr(address); err == nil {
			return schema.TextValue(a.StringExpanded())
		}
	}
	return schema.TextValue(address)
}
