package rule

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestAutomaton compares with looking for each literal by itself.
func TestAutomaton(t *testing.T) {
	words := []string{"he", "she", "his", "hers", "/bin/sh", "sh", "a", "aa", "aaa", "/usr/bin/", "x"}
	var literals []literal
	for i, w := range words {
		for f := anywhere; f <= whole; f++ {
			literals = append(literals, literal{w, f, int32(4*i) + int32(f)})
		}
	}
	a := newAutomaton(literals)
	for _, value := range []string{"", "ushers", "SHE", "/usr/bin/sh", "aaaa", "a", "his", "hishe", "x\x00y", "/bin/sh -c", "\xff\xfeshe"} {
		checkScan(t, a, literals, value)
	}
}

func checkScan(t *testing.T, a *automaton, literals []literal, value string) {
	t.Helper()
	var got []int32
	a.scan(value, func(id int32) {
		if !slices.Contains(got, id) {
			got = append(got, id)
		}
	})
	slices.Sort(got)
	var want []int32
	low := string(appendLower(nil, value))
	for _, l := range literals {
		if l.form == anywhere && strings.Contains(low, l.text) || l.form == atStart && strings.HasPrefix(low, l.text) ||
			l.form == atEnd && strings.HasSuffix(low, l.text) || l.form == whole && low == l.text {
			want = append(want, l.id)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("in %q it finds %v, want %v", value, got, want)
	}
}

// TestAutomatonOfManyStates has states without a row.
func TestAutomatonOfManyStates(t *testing.T) {
	var literals []literal
	for i := range 4000 {
		s := fmt.Sprintf("%d/%x~%o", i*7919, i*104729, i*1299709)
		literals = append(literals, literal{strings.Repeat(s, 2), form(i % 4), int32(i)})
	}
	a := newAutomaton(literals)
	if int(a.rows) >= len(a.fail) {
		t.Fatal("every state has a row")
	}
	for i := 0; i < len(literals); i += 97 {
		s := literals[i].text
		checkScan(t, a, literals, s)
		checkScan(t, a, literals, "x"+s+"y")
		checkScan(t, a, literals, s[:len(s)-1]+s)
	}
}

func FuzzAutomaton(f *testing.F) {
	f.Add("he she his hers", "ushers")
	f.Add("\xff \xfe a", "\xffa")
	f.Fuzz(func(t *testing.T, words, value string) {
		if !ascii(value) {
			value = string(appendLower(nil, value))
		}
		var literals []literal
		for i, w := range strings.Fields(words) {
			literals = append(literals, literal{string(appendLower(nil, w)), form(i % 4), int32(i)})
		}
		checkScan(t, newAutomaton(literals), literals, value)
	})
}

// FuzzPattern compares with a regular expression.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"*", "a*b", "?", "*a?b*", `\*`, `a\\*`, "", "**", "a*a*a"} {
		f.Add(s, "aXbaab")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 100 || len(value) > 1000 || strings.Contains(text, "?") && !ascii(value) || !ascii(text) {
			return // what ? is of bytes that are no UTF-8 differs
		}
		p := parsePattern(text)
		b := "(?s)^"
		for _, x := range p.parts {
			switch x.wild {
			case '*':
				b += ".*"
			case '?':
				b += "."
			default:
				b += regexp.QuoteMeta(x.text)
			}
		}
		if !ascii(value) {
			return
		}
		if got, want := p.match(value), regexp.MustCompile(b+"$").MatchString(value); got != want {
			t.Errorf("%q matches %q: %v, want %v", text, value, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(rule("category: process_creation", "s: {'Image|endswith': [a, b]}\nf: [x]\ncondition: s and not 1 of f*"))
	f.Add(steps() + "title: x\ncorrelation: {type: temporal, rules: [a, b], timespan: 1m}\n")
	f.Add("title: x\nfilter: {rules: any, s: {a: b}, condition: not s}\n---\ntitle: y\nsilence: {until: 2026-01-01T00:00:00Z}\n")
	f.Add("title: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		en := NewEngine(Parse("x", []byte(text)), Options{})
		en.Match(exec("/usr/bin/curl", "curl", text[:min(len(text), 20)]))
		for _, p := range en.Rules().Problems {
			if p.Reason == "" || p.Line < 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}

// manyRules are 200 rules in the forms that SigmaHQ's process rules have.
func manyRules() string {
	var b strings.Builder
	tools := []string{"curl", "wget", "nc", "ncat", "socat", "python3", "perl", "base64", "xxd", "chattr", "crontab", "at", "ssh", "scp", "tar", "zip", "useradd", "usermod", "passwd", "systemctl"}
	for i := range 200 {
		tool := tools[i%len(tools)]
		fmt.Fprintf(&b, "title: rule %d\nid: r%d\nlogsource: {product: linux, category: process_creation}\ndetection:\n", i, i)
		switch i % 5 {
		case 0:
			fmt.Fprintf(&b, "  selection: {'Image|endswith': /%s, 'CommandLine|contains|all': [--option%d, '/etc/file%d']}\n  condition: selection\n", tool, i, i)
		case 1:
			fmt.Fprintf(&b, "  selection: {'CommandLine|contains': ['%s -x%d', '/dev/tcp/%d', 'secret%d.key']}\n  filter: {'ParentImage|endswith': /apt}\n  condition: selection and not filter\n", tool, i, i, i)
		case 2:
			fmt.Fprintf(&b, "  sel_img: {'Image|endswith': [/%s, /%s%d]}\n  sel_cli: {'CommandLine|contains': [' -p%d ', 'port=%d']}\n  condition: all of sel_*\n", tool, tool, i, i, i)
		case 3:
			fmt.Fprintf(&b, "  selection: {'ParentImage|endswith': /daemon%d, 'Image|endswith': [/bash, /sh, /dash]}\n  condition: selection\n", i)
		case 4:
			fmt.Fprintf(&b, "  selection: {'Image|endswith': /%s, 'CommandLine|re': 'x{%d}\\s+[0-9]+'}\n  condition: selection\n", tool, i%40)
		}
		b.WriteString("---\n")
	}
	return b.String()
}

var missed = exec("/usr/bin/curl", "curl", "-fsSL", "--retry", "3", "https://packages.example.org/debian/dists/stable/InRelease", "-o", "/var/lib/apt/lists/partial/x")

func TestNothingFoundAllocatesNothing(t *testing.T) {
	set := Parse("x", []byte(manyRules()))
	if len(set.Rules) != 200 || len(set.Problems) > 0 {
		t.Fatalf("%d rules, %v", len(set.Rules), set.Problems)
	}
	en := NewEngine(set, Options{})
	en.Match(missed)
	if n := testing.AllocsPerRun(100, func() {
		if len(en.Match(missed)) > 0 {
			t.Fatal("an alert")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	en := NewEngine(Parse("x", []byte(manyRules())), Options{})
	hit := exec("/usr/bin/true", "true")
	for name, e := range map[string]event.Event{"curl": missed, "true": hit} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				en.Match(e)
			}
		})
	}
}

// TestSigmaHQ compiles fixtures of ours in the forms of SigmaHQ's rules, and the rules of a clone of
// their repository, when there is one.
func TestSigmaHQ(t *testing.T) {
	unused := sigma(t, "testdata/sigma")
	if dir := os.Getenv("GOSHAWK_SIGMA_DIR"); dir != "" {
		sigma(t, dir)
	}
	for title, reason := range map[string]string{
		"Words of a log":                         `service "syslog" writes a log, and goshawk reads no logs`,
		"Another system's":                       `product "macos" is not Linux`,
		"Requests that a server logs":            `category "webserver" is served by no kind of event`,
		"What only another system's events have": `no event of category process_creation has field "IntegrityLevel"`,
		"Two things that no event is at once":    "nothing that an event of category auditd tells can make it true",
		"Placeholders":                           "modifier expand: nobody here says",
		"A count of Sigma 1":                     "condition: aggregations after | are of Sigma before version 2",
		"A time frame of Sigma 1":                "timeframe is of Sigma before version 2",
		"A look around":                          "has no look-around and no back-references",
	} {
		if !strings.Contains(unused[title], reason) {
			t.Errorf("%s: not used for %q, want %q", title, unused[title], reason)
		}
	}
}

// sigma compiles the rules below dir, wants those that events serve to be used, and returns why
// others are not, by title.
func sigma(t *testing.T, dir string) map[string]string {
	t.Helper()
	set, err := Load([]fs.FS{os.DirFS(dir)}, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Rules) == 0 {
		t.Errorf("%s: no rule can be used", dir)
	}
	unused := map[string]string{}
	for _, p := range set.Problems {
		unused[p.Rule] = p.Reason
		if !p.Partly && !unserved(p.Reason) {
			t.Errorf("%v", p)
		}
	}
	return unused
}

// unserved reports whether a reason is that no kind of event serves the rule, or that Sigma 2 has
// another way to say it.
func unserved(reason string) bool {
	for _, s := range []string{"is not Linux", "goshawk reads no logs", "is served by no kind", "no event of category", "can make it true",
		"before version 2", "modifier expand", "no look-around"} {
		if strings.Contains(reason, s) {
			return true
		}
	}
	return false
}
