package sink

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// appendWords appends those of words that are not empty, quoted for a shell, with spaces.
func appendWords(dst []byte, words ...string) []byte {
	start := len(dst)
	for _, w := range words {
		if w == "" {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = appendQuoted(dst, w)
	}
	return dst
}

// appendSignal appends 9 KILL.
func appendSignal(dst []byte, number int32) []byte {
	dst = strconv.AppendInt(dst, int64(number), 10)
	if name := unix.SignalName(unix.Signal(number)); name != "" {
		dst = append(append(dst, ' '), strings.TrimPrefix(name, "SIG")...)
	}
	return dst
}

// appendTarget appends sshd[1234].
func appendTarget(dst []byte, pid uint32, path, comm string) []byte {
	dst = appendPlain(dst, processName(&event.Header{Path: path, Comm: comm}))
	dst = append(dst, '[')
	dst = strconv.AppendUint(dst, uint64(pid), 10)
	return append(dst, ']')
}

func (t *Text) appendFile(dst []byte, e *event.File) []byte {
	dst = append(appendPlain(dst, e.Operation), ' ')
	if e.TargetPath == "" && e.DestinationPath == "" {
		dst = append(dst, '?')
	}
	dst = appendWords(dst, e.TargetPath)
	if e.DestinationPath != "" {
		dst = appendQuoted(append(dst, " -> "...), e.DestinationPath)
	}
	if e.Argument != "" {
		dst = append(appendPlain(append(dst, " ("...), e.Argument), ')')
	}
	return t.appendResult(dst, e.Result)
}

func (t *Text) appendCredential(dst []byte, e *event.Credential) []byte {
	dst = appendPlain(dst, e.Operation)
	if e.Argument != "" {
		dst = append(appendPlain(append(dst, '('), e.Argument), ')')
	}
	for _, c := range []struct {
		name     string
		old, new uint32
	}{
		{" uid ", e.OldUID, e.NewUID}, {" euid ", e.OldEUID, e.NewEUID}, {" gid ", e.OldGID, e.NewGID}, {" egid ", e.OldEGID, e.NewEGID},
	} {
		if c.new == c.old || c.new == event.Unset {
			continue
		}
		dst = append(dst, c.name...)
		if c.old != event.Unset {
			dst = append(strconv.AppendUint(dst, uint64(c.old), 10), " -> "...)
		}
		dst = strconv.AppendUint(dst, uint64(c.new), 10)
	}
	if names := event.ByID(event.KindCredential).Column("capabilities_gained").Value(e).Text(); names != "" {
		dst = append(append(dst, " +"...), names...)
	}
	return t.appendResult(dst, e.Result)
}

func (t *Text) appendUserEvent(dst []byte, e *event.User) []byte {
	dst = appendPlain(dst, e.Type)
	for _, c := range []struct{ name, value string }{
		{" ", e.Operation}, {" account ", e.Account}, {" of ", e.Object}, {" on ", e.Terminal}, {" from ", e.Address}, {": ", e.Command},
	} {
		if c.value != "" {
			dst = appendPlain(append(dst, c.name...), c.value)
		}
	}
	return t.appendResult(dst, e.Result)
}

func (t *Text) appendPolicy(dst []byte, e *event.Policy) []byte {
	dst = appendPlain(dst, e.Module)
	if e.Module == "" {
		dst = appendPlain(dst, e.Type)
	}
	for _, c := range []struct{ name, value string }{
		{" ", e.Operation}, {" ", e.ObjectClass}, {" ", e.TargetPath}, {" by ", e.Subject}, {" on ", e.Object},
	} {
		if c.value != "" {
			dst = appendPlain(append(dst, c.name...), c.value)
		}
	}
	return t.appendResult(dst, e.Result)
}

// appendAlert tells what a rule found: its level and title, what happened, and ATT&CK's
// techniques.
func (t *Text) appendAlert(dst []byte, e *event.Alert) []byte {
	color := yellow
	if e.Level == "high" || e.Level == "critical" {
		color = red
	}
	b := append(appendPlain(t.field[:0], e.Level), ": "...)
	dst = t.paint(dst, color, appendPlain(b, e.RuleName), 0)
	if e.Summary != "" {
		n := min(len(e.Summary), maxCommand)
		for n < len(e.Summary) && n > 0 && !utf8.RuneStart(e.Summary[n]) {
			n--
		}
		dst = appendPlain(append(dst, ": "...), e.Summary[:n])
	}
	for rest := e.Tags; rest != ""; {
		var tag string
		tag, rest, _ = strings.Cut(rest, "\x00")
		if technique, ok := strings.CutPrefix(tag, "attack.t"); ok {
			dst = appendPlain(append(dst, " T"...), technique)
		}
	}
	if e.Suppressed > 0 {
		dst = append(strconv.AppendUint(append(dst, " (and "...), e.Suppressed, 10), " kept back before)"...)
	}
	return dst
}
