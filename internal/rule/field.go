package rule

import (
	"strconv"
	"strings"
	"unsafe"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// field is what a rule's field is on the events of one kind.
type field struct {
	name string // the native column, or what the field is called here
	// text is the value in words, "" unknown. It may be made in buf, which is returned with
	// what it has become.
	text func(en *Engine, buf []byte, e event.Event) (string, []byte)
	// list: the text is several values, each of which ends in a NUL byte.
	list bool
	// constant: the text is the same for all events.
	constant bool
	boolean  bool
}

// category is where a rule's events come from: kinds, and its fields' names.
type category struct {
	name  string
	kinds []event.ID
	// fields are the native columns that Sigma's names stand for; those with an @ are made
	// from several (see special).
	fields map[string]string
	// operations are those of the kind's column operation that belong to it; none: all.
	operations []string
}

// actor are the names that Sigma has for the process that acts.
var actor = map[string]string{
	"Image": "path", "ProcessId": "pid", "ParentProcessId": "ppid", "ProcessGuid": "process_id",
	"ParentProcessGuid": "parent_process_id", "LogonId": "session_id", "TerminalSessionId": "session_id", "User": "@user",
	"SourceImage": "path", "SourceProcessId": "pid", "SourceUser": "@user",
}

// categories are Sigma's logsource categories (its taxonomy appendix) that events here serve.
// Besides these, the name of a kind is a category with the kind's columns for fields.
var categories = []category{
	{"process_creation", []event.ID{event.KindExec}, map[string]string{
		"CommandLine": "@command", "ParentImage": "@parent_path", "ParentCommandLine": "@parent_command",
		"CurrentDirectory": "cwd",
	}, nil},
	{"process_termination", []event.ID{event.KindExit}, nil, nil},
	{"network_connection", []event.ID{event.KindConnect, event.KindAccept}, map[string]string{
		"DestinationIp": "@destination_address", "DestinationPort": "@destination_port", "SourceIp": "@source_address",
		"SourcePort": "@source_port", "DestinationHostname": "@destination_name", "Initiated": "@initiated", "Protocol": "protocol",
	}, nil},
	{"dns_query", []event.ID{event.KindDNS}, map[string]string{
		"QueryName": "question", "QueryResults": "answers", "QueryStatus": "response_code",
	}, nil},
	{"dns", []event.ID{event.KindDNS}, map[string]string{
		"query": "question", "record_type": "query_type", "answer": "answers", "dst_ip": "server", "dst_port": "server_port",
	}, nil},
	{"file_event", []event.ID{event.KindFile}, fileFields, []string{"create", "write", "rename", "link", "symlink", "truncate"}},
	{"file_change", []event.ID{event.KindFile}, fileFields, []string{"write", "truncate", "chmod", "chown", "setxattr", "removexattr", "utimes"}},
	{"file_delete", []event.ID{event.KindFile}, fileFields, []string{"delete"}},
	{"file_rename", []event.ID{event.KindFile}, fileFields, []string{"rename"}},
	{"file_access", []event.ID{event.KindFile}, fileFields, []string{"open"}},
	{"process_access", []event.ID{event.KindPtrace}, map[string]string{
		"TargetImage": "target_path", "TargetProcessId": "target_pid", "TargetProcessGuid": "target_process_id",
	}, nil},
	{"driver_load", []event.ID{event.KindModule}, map[string]string{"ImageLoaded": "module_path"}, []string{"load"}},
}

var fileFields = map[string]string{"TargetFilename": "@file", "SourceFilename": "target_path"}

// categoryOf finds what a logsource means; the reason says why nothing here serves it.
func categoryOf(l logsource) (c category, reason string) {
	if l.product != "" && !strings.EqualFold(l.product, "linux") {
		return c, "product " + strconv.Quote(l.product) + " is not Linux"
	}
	switch {
	case l.service == "auditd" && l.category == "":
		return category{name: "auditd", kinds: auditKinds}, ""
	case l.service != "" && l.category == "":
		return c, "service " + strconv.Quote(l.service) + " writes a log, and goshawk reads no logs"
	case l.category == "" && l.product == "":
		return c, "logsource names neither category nor product"
	case l.category == "":
		all := category{name: "linux"}
		for _, k := range event.Kinds {
			if k.ID != event.KindLoss && k.ID != event.KindAlert {
				all.kinds = append(all.kinds, k.ID)
			}
		}
		return all, ""
	}
	for _, c := range categories {
		if c.name == l.category {
			return c, ""
		}
	}
	if k := event.ByName(l.category); k != nil {
		return category{name: k.Name, kinds: []event.ID{k.ID}}, ""
	}
	return c, "category " + strconv.Quote(l.category) + " is served by no kind of event"
}

// find returns what name is on events of a kind; false when nothing is.
func (c *category) find(kind *event.Kind, name string) (field, bool) {
	if name == "" {
		return keywords(kind), true
	}
	if c.name == "auditd" {
		if f, ok := auditField(kind, name); ok {
			return f, true
		}
	}
	native, ok := c.fields[name]
	if !ok {
		native, ok = actor[name]
	}
	if !ok {
		native = name
	}
	if f, ok := special[native]; ok {
		return field{name: native, text: f}, true
	}
	for i := range kind.Columns {
		if col := &kind.Columns[i]; strings.EqualFold(col.Name, native) && !col.Has(schema.Internal) {
			return columnField(col), true
		}
	}
	return field{}, false
}

// columnField is a native column as it is.
func columnField(c *event.Column) field {
	f := field{name: c.Name, list: c.Form == schema.List, boolean: c.Form == schema.Boolean}
	switch {
	case c.Str != nil:
		f.text = func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return c.Str(e), buf }
	case c.Form == schema.Boolean:
		f.text = func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
			if c.Int(e) != 0 {
				return "true", buf
			}
			return "false", buf
		}
	case c.Int != nil:
		unknown, omits := c.Unknown()
		f.text = func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
			n := c.Int(e)
			if omits && n == unknown {
				return "", buf
			}
			buf = strconv.AppendInt(buf[:0], n, 10)
			return view(buf), buf
		}
	default:
		f.text = func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return c.Value(e).Text(), buf }
	}
	return f
}

// view is the bytes of b as a string, until b is written to again.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// special are fields that no column is.
var special = map[string]func(en *Engine, buf []byte, e event.Event) (string, []byte){
	"@user": func(en *Engine, buf []byte, e event.Event) (string, []byte) {
		h := e.Head()
		if en.opt.User == nil || h.UID == event.Unset {
			return "", buf
		}
		return en.opt.User(h.UID), buf
	},
	"@command": func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		x, ok := e.(*event.Exec)
		if !ok {
			return "", buf
		}
		buf = appendWords(buf[:0], x.Args)
		return view(buf), buf
	},
	"@parent_path":    func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return parent(buf, e, `"path":"`) },
	"@parent_command": func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return parent(buf, e, `"cmdline":"`) },
	"@file": func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		x, ok := e.(*event.File)
		if !ok {
			return "", buf
		}
		if x.DestinationPath != "" {
			return x.DestinationPath, buf
		}
		return x.TargetPath, buf
	},
	"@initiated": func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		if e.Head().Kind == event.KindConnect {
			return "true", buf
		}
		return "false", buf
	},
	"@destination_address": func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		x, ok := e.(*event.Socket)
		if !ok {
			return "", buf
		}
		if x.Kind == event.KindAccept {
			return x.LocalAddress, buf
		}
		return x.RemoteAddress, buf
	},
	"@source_address": func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		x, ok := e.(*event.Socket)
		if !ok {
			return "", buf
		}
		if x.Kind == event.KindAccept {
			return x.RemoteAddress, buf
		}
		return x.LocalAddress, buf
	},
	"@destination_port": func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return port(buf, e, event.KindAccept) },
	"@source_port":      func(_ *Engine, buf []byte, e event.Event) (string, []byte) { return port(buf, e, event.KindConnect) },
	"@destination_name": func(en *Engine, buf []byte, e event.Event) (string, []byte) {
		x, ok := e.(*event.Socket)
		if !ok {
			return "", buf
		}
		return en.names.of(x.RemoteAddress), buf
	},
}

// port is the own port where the kind is local, else the peer's.
func port(buf []byte, e event.Event, local event.ID) (string, []byte) {
	x, ok := e.(*event.Socket)
	if !ok {
		return "", buf
	}
	n := x.RemotePort
	if x.Kind == local {
		n = x.LocalPort
	}
	if n == 0 {
		return "", buf
	}
	buf = strconv.AppendUint(buf[:0], uint64(n), 10)
	return view(buf), buf
}

// appendWords appends the strings of a list with spaces between them.
func appendWords(buf []byte, list string) []byte {
	if list == "" {
		return buf
	}
	start := len(buf)
	buf = append(buf, list...)
	if buf[len(buf)-1] == 0 {
		buf = buf[:len(buf)-1]
	}
	for i := start; i < len(buf); i++ {
		if buf[i] == 0 {
			buf[i] = ' '
		}
	}
	return buf
}

// parent is a text of the first of an exec's ancestors, which are JSON.
func parent(buf []byte, e event.Event, key string) (string, []byte) {
	x, ok := e.(*event.Exec)
	if !ok {
		return "", buf
	}
	// A text never has an unescaped quote in it, so that the key is found as one: the path
	// comes before the command line.
	i := strings.Index(x.Ancestors, key)
	if i < 0 {
		return "", buf
	}
	s := x.Ancestors[i+len(key):]
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return s[:i], buf
		case '\\':
			return unquote(buf[:0], s)
		}
	}
	return "", buf
}

// unquote decodes a JSON string up to its closing quote, as schema.AppendString wrote it.
func unquote(buf []byte, s string) (string, []byte) {
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			i++
			switch c = s[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'u':
				if i+4 < len(s) {
					n, err := strconv.ParseUint(s[i+1:i+5], 16, 8)
					if err == nil {
						c = byte(n)
					}
					i += 4
				}
			}
		}
		buf = append(buf, c)
	}
	return view(buf), buf
}

// keywords are all texts of an event, each a value.
func keywords(kind *event.Kind) field {
	var columns []*event.Column
	for i := range kind.Columns {
		if c := &kind.Columns[i]; c.Str != nil && !c.Has(schema.Internal) && c.Name != "source" && c.Name != "fidelity" && c.Name != "ancestors" {
			columns = append(columns, c)
		}
	}
	return field{name: "*", list: true, text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
		buf = buf[:0]
		for _, c := range columns {
			s := c.Str(e)
			if s == "" {
				continue
			}
			if c.Form == schema.List {
				buf = appendWords(buf, s)
			} else {
				for i := 0; i < len(s); i++ {
					if s[i] != 0 {
						buf = append(buf, s[i])
					}
				}
			}
			buf = append(buf, 0)
		}
		return view(buf), buf
	}}
}
