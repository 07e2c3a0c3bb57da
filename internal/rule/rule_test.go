package rule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// exec is an event of a program started.
func exec(path string, args ...string) *event.Exec {
	return &event.Exec{
		Header: event.Header{Kind: event.KindExec, EID: 7, Time: 1_700_000_000_000_000_000, NTime: 1e9, PID: 42, Start: 35,
			BootID: "0123456789abcdef", PPID: 41, Path: path, Comm: path[strings.LastIndexByte(path, '/')+1:], UID: 1000},
		Args: strings.Join(args, "\x00") + "\x00", Cwd: "/tmp",
		Ancestors: `[{"pid":41,"path":"/usr/sbin/apache2","cmdline":"apache2 -k \"start\""},{"pid":1,"path":"/sbin/init","cmdline":"init"}]`,
	}
}

// rule makes a rule of a detection, indented by nothing.
func rule(source, detection string) string {
	return "title: t\nid: r\nlevel: high\ntags: [attack.t1059]\nlogsource: {" + source + "}\ndetection:\n" +
		"  " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n  ") + "\n"
}

func load(t testing.TB, text string) *Engine {
	t.Helper()
	set := Parse("test.yml", []byte(text))
	for _, p := range set.Problems {
		t.Errorf("%v", p)
	}
	return NewEngine(set, Options{User: func(uid uint32) string { return map[uint32]string{0: "root", 1000: "ada"}[uid] }})
}

// fires reports whether an event raises an alert.
func fires(en *Engine, e event.Event) bool { return len(en.Match(e)) > 0 }

func TestDetection(t *testing.T) {
	const process = "category: process_creation, product: linux"
	curl := exec("/usr/bin/curl", "curl", "-fsSL", "https://Example.com/a.sh", "-o", "/tmp/x y")
	for _, tt := range []struct {
		name, detection string
		want            bool
	}{
		{"equal", "s: {Image: /usr/bin/curl}\ncondition: s", true},
		{"equal in other letters", "s: {Image: /USR/bin/Curl}\ncondition: s", true},
		{"not equal", "s: {Image: /usr/bin/cur}\ncondition: s", false},
		{"cased", "s: {'Image|cased': /usr/bin/curl}\ncondition: s", true},
		{"cased, in other letters", "s: {'Image|cased': /usr/bin/Curl}\ncondition: s", false},
		{"contains", "s: {'CommandLine|contains': example.COM}\ncondition: s", true},
		{"startswith", "s: {'CommandLine|startswith': 'curl -f'}\ncondition: s", true},
		{"startswith elsewhere", "s: {'CommandLine|startswith': 'url -f'}\ncondition: s", false},
		{"endswith", "s: {'CommandLine|endswith': ' y'}\ncondition: s", true},
		{"endswith elsewhere", "s: {'CommandLine|endswith': ' x'}\ncondition: s", false},
		{"any of a list", "s: {'Image|endswith': [/wget, /curl]}\ncondition: s", true},
		{"all of a list", "s: {'CommandLine|contains|all': [http, '-o']}\ncondition: s", true},
		{"all but one", "s: {'CommandLine|contains|all': [http, '-x']}\ncondition: s", false},
		{"fields are and", "s: {'Image|endswith': /curl, CommandLine: nothing}\ncondition: s", false},
		{"maps in a list are or", "s:\n  - {Image: nothing}\n  - {'Image|endswith': /curl}\ncondition: s", true},
		{"wildcards", "s: {CommandLine: 'curl*http?://*'}\ncondition: s", true},
		{"wildcards, none there", "s: {CommandLine: 'curl*ftp?://*'}\ncondition: s", false},
		{"one character", "s: {Image: '/usr/bin/cur?'}\ncondition: s", true},
		{"escaped wildcard", `s: {'CommandLine|contains': 'https\*'}` + "\ncondition: s", false},
		{"re", `s: {'CommandLine|re': 'https://[A-Z]\w+\.com'}` + "\ncondition: s", true},
		{"re minds letters", `s: {'CommandLine|re': 'HTTPS'}` + "\ncondition: s", false},
		{"re with i", `s: {'CommandLine|re|i': 'HTTPS'}` + "\ncondition: s", true},
		{"number", "s: {ProcessId: 42}\ncondition: s", true},
		{"gte", "s: {'ProcessId|gte': 42}\ncondition: s", true},
		{"gt", "s: {'ProcessId|gt': 42}\ncondition: s", false},
		{"lt", "s: {'ProcessId|lt': 43}\ncondition: s", true},
		{"lte", "s: {'uid|lte': 999}\ncondition: s", false},
		{"exists", "s: {'CurrentDirectory|exists': true}\ncondition: s", true},
		{"does not exist", "s: {'script|exists': false}\ncondition: s", true},
		{"null", "s: {script: null}\ncondition: s", true},
		{"null, but there", "s: {Image: null}\ncondition: s", false},
		{"empty", "s: {script: ''}\ncondition: s", true},
		{"fieldref", "s: {'ProcessId|fieldref': ParentProcessId}\ncondition: s", false},
		{"fieldref endswith", "s: {'Image|fieldref|endswith': comm}\ncondition: s", true},
		{"windash", "s: {'CommandLine|windash|contains': ' /fsSL'}\ncondition: s", true},
		{"neq", "s: {'Image|neq': /bin/sh}\ncondition: s", true},
		{"user", "s: {User: ada}\ncondition: s", true},
		{"parent", "s: {'ParentImage|endswith': /apache2}\ncondition: s", true},
		{"parent's command, with quotes", `s: {ParentCommandLine: 'apache2 -k "start"'}` + "\ncondition: s", true},
		{"native column", "s: {cwd: /tmp}\ncondition: s", true},
		{"one argument of the list", "s: {args: '/tmp/x y'}\ncondition: s", true},
		{"boolean", "s: {memfd: false}\ncondition: s", true},
		{"boolean as a number", "s: {memfd: 0, deleted: 1}\ncondition: s", false},
		{"not", "s: {Image: /bin/sh}\ncondition: not s", true},
		{"and not", "s: {'Image|endswith': curl}\nf: {uid: 1000}\ncondition: s and not f", false},
		{"or", "a: {Image: x}\nb: {uid: 1000}\ncondition: a or b", true},
		{"and binds closer", "a: {uid: 1000}\nb: {uid: 1}\nc: {uid: 2}\ncondition: a or b and c", true},
		{"parentheses", "a: {uid: 1000}\nb: {uid: 1}\nc: {uid: 2}\ncondition: (a or b) and c", false},
		{"1 of", "sel_a: {uid: 1}\nsel_b: {uid: 1000}\ncondition: 1 of sel_*", true},
		{"all of", "sel_a: {uid: 1}\nsel_b: {uid: 1000}\ncondition: all of sel_*", false},
		{"not 1 of", "sel: {uid: 1000}\nfilter_a: {uid: 1}\nfilter_b: {uid: 2}\ncondition: sel and not 1 of filter_*", true},
		{"all of them but those of _", "sel: {uid: 1000}\n_x: {uid: 1}\ncondition: all of them", true},
		{"list of conditions", "a: {uid: 1}\nb: {uid: 1000}\ncondition: [a, b]", true},
		{"keyword", "k: [nothing, example.com]\ncondition: k", true},
		{"keywords, all", "k: {'|all': [example.com, curl]}\ncondition: k", true},
		{"keywords, not all", "k: {'|all': [example.com, wget]}\ncondition: k", false},
		{"keyword with wildcard", "k: ['curl*tmp']\ncondition: k", true},
		{"tilde in value", "s: {'Image|contains': '~'}\ncondition: s", false},
	} {
		en := load(t, rule(process, tt.detection))
		if got := fires(en, curl); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got := fires(en, curl); got != tt.want {
			t.Errorf("%s, again: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestEncodedValues(t *testing.T) {
	const process = "category: process_creation"
	for _, tt := range []struct {
		detection, argument string
		want                bool
	}{
		{"s: {'CommandLine|base64offset|contains': /bin/bash}\ncondition: s", "L2Jpbi9iYXNo", true},
		{"s: {'CommandLine|base64offset|contains': /bin/bash}\ncondition: s", "eC9iaW4vYmFzaA==", true},  // x/bin/bash
		{"s: {'CommandLine|base64offset|contains': /bin/bash}\ncondition: s", "eHgvYmluL2Jhc2g=", true},  // xx/bin/bash
		{"s: {'CommandLine|base64offset|contains': /bin/bash}\ncondition: s", "EHGVYMLUL2JHC2G=", false}, // in other letters
		{"s: {'CommandLine|base64|contains': whoami}\ncondition: s", "d2hvYW1p", true},
		{"s: {'CommandLine|wide|base64|contains': id}\ncondition: s", "aQBkAA==", true},
		{"s: {'CommandLine|windash|contains': ' -enc'}\ncondition: s", "/enc", true},
		{"s: {'CommandLine|windash|contains': ' -enc'}\ncondition: s", "\u2013enc", true},
		{"s: {'CommandLine|contains': '\u00c4RGER'}\ncondition: s", "\u00e4rger", true},
	} {
		if got := fires(load(t, rule(process, tt.detection)), exec("/bin/x", "x", tt.argument)); got != tt.want {
			t.Errorf("%s: %v of %s, want %v", tt.detection, got, tt.argument, tt.want)
		}
	}
}

func TestCategories(t *testing.T) {
	head := func(id event.ID) event.Header { return event.Header{Kind: id, Path: "/usr/bin/nc", NTime: 1} }
	connect := &event.Socket{Header: head(event.KindConnect), RemoteAddress: "198.51.100.7", RemotePort: 4444, LocalAddress: "10.0.0.2", LocalPort: 55000, Protocol: "tcp"}
	accept := &event.Socket{Header: head(event.KindAccept), RemoteAddress: "198.51.100.7", RemotePort: 55000, LocalAddress: "10.0.0.2", LocalPort: 22}
	dns := &event.DNS{Header: head(event.KindDNS), Question: "pool.example.org", QueryType: "A", Answers: "198.51.100.7\x00"}
	create := &event.File{Header: head(event.KindFile), Operation: "create", TargetPath: "/etc/cron.d/x"}
	rename := &event.File{Header: head(event.KindFile), Operation: "rename", TargetPath: "/tmp/x", DestinationPath: "/etc/cron.d/x"}
	remove := &event.File{Header: head(event.KindFile), Operation: "delete", TargetPath: "/etc/cron.d/x", Syscall: "unlinkat"}
	module := &event.Module{Header: head(event.KindModule), Operation: "load", Name: "evil", ModulePath: "/tmp/evil.ko", Result: "ok", Syscall: "finit_module"}
	user := &event.User{Header: head(event.KindUser), Type: "USER_AUTH", Account: "root", Result: "failed"}
	ptrace := &event.Ptrace{Header: head(event.KindPtrace), Request: "attach", TargetPath: "/usr/sbin/sshd", TargetPID: 9}
	for _, tt := range []struct {
		name, source, detection string
		e                       event.Event
		want                    bool
	}{
		{"port", "category: network_connection, product: linux", "s: {DestinationPort: [4444, 31337], Initiated: 'true'}\ncondition: s", connect, true},
		{"network", "category: network_connection", "s: {'DestinationIp|cidr': [10.0.0.0/8, '198.51.100.0/24']}\ncondition: s", connect, true},
		{"not in the network", "category: network_connection", "s: {'DestinationIp|cidr': '10.0.0.0/8'}\ncondition: s", connect, false},
		{"no network", "category: network_connection", "s: {'Image|cidr': '10.0.0.0/8'}\ncondition: s", connect, false},
		{"accepted", "category: network_connection", "s: {DestinationPort: 22, Initiated: 'false', SourceIp: 198.51.100.7}\ncondition: s", accept, true},
		{"dns", "category: dns_query, product: linux", "s: {'QueryName|endswith': .example.org, QueryResults: 198.51.100.7}\ncondition: s", dns, true},
		{"file", "category: file_event, product: linux", "s: {'TargetFilename|startswith': /etc/cron}\ncondition: s", create, true},
		{"file, renamed to", "category: file_event", "s: {'TargetFilename|startswith': /etc/cron}\ncondition: s", rename, true},
		{"file, deleted", "category: file_event", "s: {'TargetFilename|startswith': /etc/cron}\ncondition: s", remove, false},
		{"file_delete", "category: file_delete", "s: {'TargetFilename|startswith': /etc/cron}\ncondition: s", remove, true},
		{"module", "category: driver_load", "s: {'ImageLoaded|startswith': /tmp/}\ncondition: s", module, true},
		{"kind", "category: module", "s: {module_path: /tmp/*, operation: load}\ncondition: s", module, true},
		{"process_access", "category: process_access", "s: {'TargetImage|endswith': /sshd}\ncondition: s", ptrace, true},
		{"auditd execve", "product: linux, service: auditd", "s: {type: EXECVE, a0: curl, 'a1|startswith': -f}\ncondition: s", exec("/usr/bin/curl", "curl", "-fs"), true},
		{"auditd execve, other argument", "product: linux, service: auditd", "s: {type: EXECVE, a1: curl}\ncondition: s", exec("/usr/bin/curl", "curl", "-fs"), false},
		{"auditd syscall", "product: linux, service: auditd", "s: {type: SYSCALL, syscall: [init_module, finit_module], success: 'yes'}\ncondition: s", module, true},
		{"auditd path", "product: linux, service: auditd", "s: {type: PATH, 'name|startswith': /etc/cron.d, nametype: CREATE}\ncondition: s", create, true},
		{"auditd user", "product: linux, service: auditd", "s: {type: USER_AUTH, acct: root, res: failed}\ncondition: s", user, true},
		{"auditd keywords", "product: linux, service: auditd", "k: [evil.ko]\ncondition: k", module, true},
		{"anything of linux", "product: linux", "k: ['/tmp/evil*']\ncondition: k", module, true},
	} {
		if got := fires(load(t, rule(tt.source, tt.detection)), tt.e); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}

	// The name that an address was found by.
	en := load(t, rule("category: network_connection", "s: {'DestinationHostname|startswith': pool.}\ncondition: s"))
	if fires(en, connect) {
		t.Error("an address has a name before anybody asked for it")
	}
	if fires(en, dns) || !fires(en, connect) {
		t.Error("an address has not the name that it was found by")
	}
}

func TestAlert(t *testing.T) {
	en := load(t, rule("category: process_creation", "s: {'Image|endswith': /curl}\ncondition: s"))
	alerts := en.Match(exec("/usr/bin/curl", "curl", "x"))
	if len(alerts) != 1 {
		t.Fatalf("%d alerts", len(alerts))
	}
	got := string(event.AppendJSON(nil, alerts[0]))
	for _, want := range []string{
		`"kind":"alert"`, `"rule_id":"r"`, `"rule_name":"t"`, `"level":"high"`, `"tags":["attack.t1059"]`,
		`"evidence":[{"kind":"exec","table":"exec_events","eid":7,"process_id":"01234567-42-z"}]`,
		`"pid":42`, `"path":"/usr/bin/curl"`, `"summary":"curl x"`, `"ancestors":[{"pid":41,`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

func TestProblems(t *testing.T) {
	good := "\n---\n" + strings.ReplaceAll(rule("category: process_creation", "s: {uid: 1000}\ncondition: s"), "id: r", "id: good")
	for _, tt := range []struct{ name, text, want string }{
		{"no rule", "- a\n- b", "1: a rule is a map"},
		{"no title", "id: x", "no title"},
		{"no detection", "title: x\nlogsource: {product: linux}", "no detection"},
		{"no logsource", "title: x\ndetection: {s: {a: b}, condition: s}", "no logsource"},
		{"windows", rule("category: process_creation, product: windows", "s: {Image: x}\ncondition: s"), `5: t: product "windows" is not Linux`},
		{"service", rule("product: linux, service: sshd", "s: [x]\ncondition: s"), `service "sshd" writes a log`},
		{"category", rule("category: webserver", "s: [x]\ncondition: s"), `category "webserver" is served by no kind`},
		{"field", rule("category: process_creation", "s: {Imphash: x}\ncondition: s"), `7: t: no event of category process_creation has field "Imphash"`},
		{"search", rule("category: process_creation", "s: {Image: x}\ncondition: t"), `no search called "t"`},
		{"of", rule("category: process_creation", "s: {Image: x}\ncondition: 1 of filter*"), `no search is called like "filter*"`},
		{"aggregation", rule("category: process_creation", "s: {Image: x}\ncondition: s | count() > 5"), "write a correlation"},
		{"parenthesis", rule("category: process_creation", "s: {Image: x}\ncondition: (s"), "parenthesis is not closed"},
		{"half a condition", rule("category: process_creation", "s: {Image: x}\ncondition: s and"), "something is missing"},
		{"too much", rule("category: process_creation", "s: {Image: x}\ncondition: s s"), "not expected"},
		{"modifier", rule("category: process_creation", "s: {'Image|like': x}\ncondition: s"), `modifier "like" is not known`},
		{"expand", rule("category: process_creation", "s: {'Image|expand': '%x%'}\ncondition: s"), "placeholder"},
		{"regular expression", rule("category: process_creation", "s: {'Image|re': '(?=x)'}\ncondition: s"), "no look-around"},
		{"network", rule("category: network_connection", "s: {'DestinationIp|cidr': 10.0.0.0}\ncondition: s"), "ADDRESS/BITS"},
		{"level", "title: x\nlevel: worst", `level "worst" is none of`},
		{"yaml", "title: [x", "did not find expected"},
		{"timeframe", rule("category: process_creation", "s: {Image: x}\ntimeframe: 5m\ncondition: s"), "correlation"},
		{"nothing of it", rule("product: linux, service: auditd", "s: {type: EXECVE, a0: x}\nf: {type: SOCKADDR}\ncondition: s and f"), "can make it true"},
		{"correlation without rules", "title: x\ncorrelation: {type: event_count, rules: [nix], timespan: 1m, condition: {gte: 2}}", `rule "nix"`},
		{"correlation of less", "title: x\ncorrelation: {type: event_count, rules: [good], timespan: 1m, condition: {lt: 2}}", "when nothing happens"},
		{"timespan", "title: x\ncorrelation: {type: event_count, rules: [good], timespan: soon, condition: {gte: 2}}", "time span"},
	} {
		set := Parse("x.yml", []byte(tt.text+good))
		if len(set.Problems) == 0 || !strings.Contains(set.Problems[0].String(), tt.want) || !strings.HasPrefix(set.Problems[0].String(), "x.yml:") {
			t.Errorf("%s: problems are %v, want %q", tt.name, set.Problems, tt.want)
		}
		if tt.name == "yaml" {
			continue // and with it the rest of the file
		}
		if len(set.Rules) != 1 || set.Rules[0].ID != "good" {
			t.Errorf("%s: the other rule does not run: %v", tt.name, set.Rules)
		}
	}
	set := Parse("x.yml", []byte(rule("category: process_creation", "s: {uid: 1000}\nf: {Imphash: x}\ncondition: s and not f")))
	if len(set.Problems) != 1 || !set.Problems[0].Partly || len(set.Rules) != 1 {
		t.Errorf("a filter on a field that is not there: %v, %d rules", set.Problems, len(set.Rules))
	}
	set = Parse("x.yml", []byte(strings.TrimPrefix(good, "\n---\n")+good))
	if len(set.Problems) != 1 || !strings.Contains(set.Problems[0].Reason, "already that of x.yml:1") {
		t.Errorf("one id twice: %v", set.Problems)
	}
}

func TestFilterAndSilence(t *testing.T) {
	base := rule("category: process_creation, product: linux", "s: {'Image|endswith': /curl}\ncondition: s")
	en := load(t, base+`---
title: Not the updater
logsource: {category: process_creation, product: linux}
filter:
  rules: [r]
  selection: {cwd: /opt/updater}
  condition: not selection
---
title: Night of work
silence: {rules: [any], from: 2023-11-14T22:00:00Z, until: 2023-11-14T23:00:00Z}
`)
	x := exec("/usr/bin/curl", "curl")
	if fires(en, x) {
		t.Error("an alert while there is silence")
	}
	if !en.Silenced("query:q", x.Time, 3) || en.Silenced("query:q", x.Time+int64(time.Hour), 9) {
		t.Error("what is no rule is not silent when any is")
	}
	x.Time += int64(time.Hour)
	if !fires(en, x) {
		t.Error("no alert after the silence")
	}
	x.Cwd = "/opt/updater"
	if fires(en, x) {
		t.Error("an alert that is filtered out")
	}
	if got := en.Counts()[2].N; got != 1+3 {
		t.Errorf("%d alerts suppressed, want 4", got)
	}
	if set := Parse("x", []byte(base+"---\ntitle: f\nfilter: {rules: [other], s: {uid: 1}, condition: not s}\n")); len(set.Problems) != 1 {
		t.Errorf("a filter for nothing: %v", set.Problems)
	}
}

func TestThrottle(t *testing.T) {
	en := load(t, rule("category: process_creation", "s: {'Image|endswith': /curl}\ncondition: s")+"goshawk: {throttle: 10m, by: [cwd]}\n")
	n := 0
	var last event.Event
	for i := range 30 { // a minute apart, from two directories
		x := exec("/usr/bin/curl", "curl")
		x.NTime += uint64(i) * uint64(time.Minute)
		x.Cwd = fmt.Sprintf("/%d", i%2)
		for _, a := range en.Match(x) {
			n++
			last = a
		}
	}
	if n != 6 {
		t.Errorf("%d alerts, want 6", n)
	}
	if got := last.(*event.Alert).Suppressed; got != 4 {
		t.Errorf("the last tells of %d suppressed, want 4", got)
	}
	// Without a throttle a flood is bounded all the same.
	en = load(t, rule("category: process_creation", "s: {'Image|endswith': /curl}\ncondition: s"))
	n = 0
	for range maxAlerts + 50 {
		n += len(en.Match(exec("/usr/bin/curl", "curl")))
	}
	if n != maxAlerts {
		t.Errorf("%d alerts in no time, want %d", n, maxAlerts)
	}
}

func TestFollow(t *testing.T) {
	en := load(t, rule("category: process_creation", "s: {uid: 1}\ncondition: s"))
	x := exec("/usr/bin/curl", "curl")
	if fires(en, x) {
		t.Error("an alert")
	}
	en.Follow(Parse("x", []byte(rule("category: process_creation", "s: {uid: 1000}\ncondition: s"))))
	if !fires(en, x) {
		t.Error("the new rules are not followed")
	}
	en.Follow(&Set{})
	if fires(en, x) {
		t.Error("an alert without rules")
	}
}
