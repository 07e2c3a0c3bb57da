package sink

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Widths of the columns; what is longer pushes the rest of its line.
const (
	kindWidth      = 7
	userWidth      = 8
	containerWidth = 12
	processWidth   = 28

	// maxParents is how many names stand before a process's own.
	maxParents = 3
	// maxCommand is how many bytes of arguments a line shows; JSON has all of them.
	maxCommand = 2048
)

// Text writes events as lines for people. Its fields are asked on the goroutine that
// encodes.
type Text struct {
	Color bool
	Zone  *time.Location // of the times shown; nil is UTC
	// User returns a user's name, or "" when it has none.
	User func(uid uint32) string
	// Lineage appends the names of at most max processes above the one in the header,
	// nearest first.
	Lineage func(dst []string, h *event.Header, max int) []string

	names []string
	field []byte
}

// Colours, as SGR parameters.
const (
	dim    = "2"
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	purple = "35"
	cyan   = "36"
)

func kindColor(id event.ID) string {
	switch id {
	case event.KindExec:
		return green
	case event.KindConnect, event.KindAccept:
		return cyan
	case event.KindBind, event.KindListen:
		return blue
	case event.KindDNS:
		return purple
	case event.KindFile, event.KindUser:
		return yellow
	case event.KindLoss, event.KindCredential, event.KindPtrace, event.KindModule, event.KindMount, event.KindPolicy, event.KindAlert, event.KindBPF,
		event.KindNamespace, event.KindMemory, event.KindSyscall:
		return red
	}
	return dim
}

// Append is the Encoder: time, kind, user, container, process with its parents, and what
// happened.
func (t *Text) Append(dst []byte, e event.Event) []byte {
	h := e.Head()
	zone := t.Zone
	if zone == nil {
		zone = time.UTC
	}
	dst = t.paint(dst, dim, time.Unix(0, h.Time).In(zone).AppendFormat(t.field[:0], "15:04:05.000"), 0)
	dst = append(dst, ' ')
	dst = t.paint(dst, kindColor(h.Kind), append(t.field[:0], h.Kind.String()...), kindWidth)
	dst = append(dst, ' ')
	if h.Kind == event.KindLoss {
		return append(t.appendWhat(dst, e), '\n')
	}

	color := ""
	if h.UID == 0 {
		color = yellow
	}
	if h.PID == 0 && h.UID == event.Unset { // no process did it
		dst = t.paint(dst, "", append(t.field[:0], '-'), userWidth)
	} else {
		dst = t.paint(dst, color, t.appendUser(t.field[:0], h.UID), userWidth)
	}
	dst = append(dst, ' ')
	dst = t.paint(dst, "", appendContainer(t.field[:0], h), containerWidth)
	dst = append(dst, ' ')
	dst = t.appendProcess(dst, h)
	dst = append(dst, ' ')
	return append(t.appendWhat(dst, e), '\n')
}

// paint appends a field in a colour, padded with spaces to a width.
func (t *Text) paint(dst []byte, color string, field []byte, width int) []byte {
	t.field = field
	if t.Color && color != "" {
		dst = append(append(append(dst, "\x1b["...), color...), 'm')
		dst = append(append(dst, field...), "\x1b[0m"...)
	} else {
		dst = append(dst, field...)
	}
	for n := utf8.RuneCount(field); n < width; n++ {
		dst = append(dst, ' ')
	}
	return dst
}

func (t *Text) appendUser(dst []byte, uid uint32) []byte {
	if uid == event.Unset {
		return append(dst, '?')
	}
	if t.User != nil {
		if name := t.User(uid); name != "" {
			return appendPlain(dst, name)
		}
	}
	return strconv.AppendUint(dst, uint64(uid), 10)
}

func appendContainer(dst []byte, h *event.Header) []byte {
	switch {
	case h.ContainerName != "":
		return appendPlain(dst, h.ContainerName)
	case h.ContainerID != "":
		return appendPlain(dst, h.ContainerID[:min(12, len(h.ContainerID))])
	}
	return append(dst, '-')
}

// appendProcess appends sshd>bash>curl[1234].
func (t *Text) appendProcess(dst []byte, h *event.Header) []byte {
	b := t.field[:0]
	if h.PID == 0 && h.Comm == "" {
		return t.paint(dst, "", append(b, '-'), processWidth)
	}
	if t.Lineage != nil {
		t.names = t.Lineage(t.names[:0], h, maxParents)
		for i := len(t.names) - 1; i >= 0; i-- {
			b = append(appendPlain(b, t.names[i]), '>')
		}
	}
	parents := utf8.RuneCount(b)
	dst = t.paint(dst, dim, b, 0)
	b = appendPlain(t.field[:0], processName(h))
	b = append(b, '[')
	b = strconv.AppendUint(b, uint64(h.PID), 10)
	b = append(b, ']')
	return t.paint(dst, bold, b, processWidth-parents)
}

// processName is the program's file name, or the name of a kernel thread.
func processName(h *event.Header) string {
	switch name := h.Path[strings.LastIndexByte(h.Path, '/')+1:]; {
	case name != "":
		return name
	case h.Comm != "":
		return h.Comm
	}
	return "?"
}

func (t *Text) appendWhat(dst []byte, e event.Event) []byte {
	switch e := e.(type) {
	case *event.Exec:
		return appendCommand(dst, e)
	case *event.Fork:
		dst = append(dst, "child "...)
		dst = strconv.AppendUint(dst, uint64(e.ChildPID), 10)
		if e.ChildPPID != e.PID && e.ChildPPID != 0 {
			dst = append(dst, " of parent "...)
			dst = strconv.AppendUint(dst, uint64(e.ChildPPID), 10)
		}
		return dst
	case *event.Exit:
		return t.appendExit(dst, e)
	case *event.Socket:
		return t.appendSocket(dst, e)
	case *event.DNS:
		return t.appendDNS(dst, e)
	case *event.File:
		return t.appendFile(dst, e)
	case *event.Credential:
		return t.appendCredential(dst, e)
	case *event.Ptrace:
		dst = append(appendPlain(dst, e.Request), " of "...)
		return t.appendResult(appendTarget(dst, e.TargetPID, e.TargetPath, e.TargetComm), e.Result)
	case *event.Signal:
		dst = append(appendSignal(dst, e.Signal), " to "...)
		return t.appendResult(appendTarget(dst, e.TargetPID, e.TargetPath, e.TargetComm), e.Result)
	case *event.Module:
		dst = append(appendPlain(dst, e.Operation), ' ')
		dst = appendWords(dst, e.Name, e.ModulePath, e.Parameters)
		return t.appendResult(dst, e.Result)
	case *event.Mount:
		dst = append(appendPlain(dst, e.Operation), ' ')
		dst = appendWords(dst, e.FilesystemType, e.Source, e.Target)
		return t.appendResult(dst, e.Result)
	case *event.BPF:
		dst = append(appendPlain(dst, e.Operation), ' ')
		dst = appendWords(dst, e.ProgramType, e.ProgramName, e.AttachPoint)
		return t.appendResult(dst, e.Result)
	case *event.Namespace:
		dst = append(appendPlain(dst, e.Operation), ' ')
		dst = appendWords(dst, e.Namespaces, e.TargetPath)
		if e.Inode != 0 {
			dst = append(strconv.AppendUint(append(dst, '['), e.Inode, 10), ']')
		}
		return t.appendResult(dst, e.Result)
	case *event.Memory:
		dst = append(appendPlain(dst, e.Operation), ' ')
		dst = appendWords(dst, e.Name, e.Protection, e.Flags)
		if e.Length != 0 {
			dst = appendBytes(append(dst, ' '), e.Length)
		}
		return t.appendResult(dst, e.Result)
	case *event.Syscall:
		dst = append(appendPlain(dst, e.Syscall), ' ')
		dst = appendWords(dst, e.Operation, e.Object, e.Name)
		if e.Value != 0 {
			dst = strconv.AppendInt(append(dst, ' '), e.Value, 10)
		}
		return t.appendResult(dst, e.Result)
	case *event.User:
		return t.appendUserEvent(dst, e)
	case *event.Policy:
		return t.appendPolicy(dst, e)
	case *event.Container:
		return t.appendLife(dst, e)
	case *event.Alert:
		return t.appendAlert(dst, e)
	case *event.Loss:
		b := append(t.field[:0], "lost "...)
		b = strconv.AppendUint(b, e.Count, 10)
		b = append(b, ' ')
		b = appendPlain(b, e.KindLost)
		b = append(b, " events: "...)
		return t.paint(dst, red, appendPlain(b, e.Reason), 0)
	}
	return event.AppendJSON(dst, e)
}

// appendLife tells of a step in the life of a container: its number, and what is known of it.
func (t *Text) appendLife(dst []byte, e *event.Container) []byte {
	dst = t.paint(dst, bold, append(t.field[:0], e.Operation...), 0)
	for _, f := range [...]struct{ name, value string }{
		{"", e.ContainerID[:min(12, len(e.ContainerID))]}, {"name", e.ContainerName}, {"image", e.Image},
		{"pod", e.PodName}, {"runtime", e.Runtime},
	} {
		if f.value == "" {
			continue
		}
		dst = append(dst, ' ')
		if f.name != "" {
			dst = append(append(dst, f.name...), '=')
		}
		dst = appendQuoted(dst, f.value)
	}
	if e.Args != "" {
		dst = appendArguments(append(dst, ": "...), e.Args, false, 0)
	}
	if e.Ended != 0 {
		status := e.Ended - 1
		dst = t.appendEnd(append(dst, ' '), int32(status>>8&0xff), int32(status&0x7f), false)
	}
	if e.DurationNs != 0 {
		dst = appendDuration(append(dst, ", "...), e.DurationNs)
	}
	return dst
}

func appendCommand(dst []byte, e *event.Exec) []byte {
	if e.Args == "" {
		dst = appendQuoted(dst, e.Path)
	}
	dst = appendArguments(dst, e.Args, e.ArgsTruncated, e.ArgsLength)
	if e.Script != "" {
		dst = append(appendQuoted(append(dst, "  (script "...), e.Script), ')')
	}
	switch {
	case e.Memfd:
		dst = append(dst, "  (from memory)"...)
	case e.Deleted:
		dst = append(dst, "  (deleted)"...)
	case e.NotInImage:
		dst = append(dst, "  (not in the image)"...)
	}
	return dst
}

// appendArguments appends a list of arguments as a shell would take them; length is that of
// all when the list was cut.
func appendArguments(dst []byte, list string, cut bool, length uint64) []byte {
	start := len(dst)
	rest := list
	for rest != "" {
		if len(dst)-start >= maxCommand {
			cut = true
			break
		}
		var arg string
		arg, rest, _ = strings.Cut(rest, "\x00")
		if n := maxCommand; len(arg) > n {
			for !utf8.RuneStart(arg[n]) && n > maxCommand-utf8.UTFMax {
				n--
			}
			arg, cut = arg[:n], true
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = appendQuoted(dst, arg)
	}
	if cut {
		dst = append(dst, " ..."...)
		if length > 0 {
			dst = append(appendBytes(append(dst, " ("...), length), ')')
		}
	}
	return dst
}

func (t *Text) appendExit(dst []byte, e *event.Exit) []byte {
	dst = t.appendEnd(dst, e.ExitCode, e.Signal, e.CoreDumped)
	if e.DurationNs == event.Missing {
		return dst
	}
	dst = append(dst, ", "...)
	return appendDuration(dst, e.DurationNs)
}

// appendEnd says how a process ended.
func (t *Text) appendEnd(dst []byte, code, signal int32, core bool) []byte {
	b := t.field[:0]
	color := ""
	if signal != 0 {
		color = red
		b = appendSignal(append(b, "signal "...), signal)
		if core {
			b = append(b, " with core"...)
		}
	} else {
		if code != 0 {
			color = red
		}
		b = append(b, "code "...)
		b = strconv.AppendInt(b, int64(code), 10)
	}
	return t.paint(dst, color, b, 0)
}

func (t *Text) appendSocket(dst []byte, e *event.Socket) []byte {
	if e.Family == "unix" {
		dst = append(dst, "unix "...)
		dst = append(append(dst, e.Protocol...), ' ')
		dst = appendPlain(dst, e.SocketPath)
	} else {
		dst = append(append(dst, e.Protocol...), ' ')
		switch e.Kind {
		case event.KindBind, event.KindListen:
			dst = appendAddress(dst, e.LocalAddress, e.LocalPort)
		case event.KindAccept:
			dst = appendAddress(dst, e.LocalAddress, e.LocalPort)
			dst = append(dst, " <- "...)
			dst = appendAddress(dst, e.RemoteAddress, e.RemotePort)
		default:
			if e.LocalAddress != "" {
				dst = appendAddress(dst, e.LocalAddress, e.LocalPort)
				dst = append(dst, ' ')
			}
			dst = append(dst, "-> "...)
			dst = appendAddress(dst, e.RemoteAddress, e.RemotePort)
		}
	}
	if e.Kind == event.KindClose {
		dst = append(dst, ' ')
		dst = append(appendBytes(dst, e.BytesSent), " out, "...)
		dst = append(appendBytes(dst, e.BytesReceived), " in"...)
		if e.DurationNs != 0 {
			dst = appendDuration(append(dst, ", "...), e.DurationNs)
		}
		return dst
	}
	return t.appendResult(dst, e.Result)
}

// appendResult appends what became of a call, if that is known.
func (t *Text) appendResult(dst []byte, result string) []byte {
	color := red
	switch result {
	case "":
		return dst
	case "ok", "success", "allowed":
		color = green
	case "in_progress":
		color = yellow
	}
	return t.paint(append(dst, ' '), color, appendPlain(t.field[:0], result), 0)
}

func appendAddress(dst []byte, address string, port uint16) []byte {
	switch a, err := netip.ParseAddr(address); {
	case address == "":
		dst = append(dst, '*')
	case err == nil && a.Is6():
		dst = append(a.AppendTo(append(dst, '[')), ']')
	default:
		dst = appendPlain(dst, address)
	}
	dst = append(dst, ':')
	if port == 0 {
		return append(dst, '*')
	}
	return strconv.AppendUint(dst, uint64(port), 10)
}

func (t *Text) appendDNS(dst []byte, e *event.DNS) []byte {
	dst = appendPlain(dst, e.QueryType)
	dst = append(dst, ' ')
	dst = appendPlain(dst, e.Question)
	dst = append(dst, " -> "...)
	answers := 0
	for rest := e.Answers; rest != ""; answers++ {
		var a string
		a, rest, _ = strings.Cut(rest, "\x00")
		if answers > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendPlain(dst, a)
	}
	switch {
	case answers > 0:
	case e.ResponseCode == "":
		dst = t.paint(dst, red, append(t.field[:0], "no answer"...), 0)
	default:
		dst = t.paint(dst, red, appendPlain(t.field[:0], e.ResponseCode), 0)
	}
	if e.Truncated {
		dst = append(dst, " ..."...)
	}
	return dst
}
