package rule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/goshawk-project/goshawk/internal/event"
)

// logsource is where the events of a rule come from.
type logsource struct {
	category, product, service string
	line                       int
}

// within reports whether every word that l has is that of m.
func (l logsource) within(m logsource) bool {
	return (l.category == "" || l.category == m.category) && (l.product == "" || l.product == m.product) &&
		(l.service == "" || l.service == m.service)
}

// parsed is a document that was read: a rule, a correlation, a filter or a silence.
type parsed struct {
	Rule
	source      logsource
	sourceGiven bool
	condition   *node
	correlation *correlationRule
	generate    bool // of a correlation: the rules it is over raise alerts of their own, too
	filter      []string
	silence     *silence
}

const (
	maxFile      = 1 << 20
	maxDocuments = 1000
)

// readDocuments reads the YAML documents of a file. What is wrong with one keeps none of the
// others from being used, as long as the file is YAML.
func readDocuments(file string, text []byte) (docs []*parsed, problems []Problem) {
	if len(text) > maxFile {
		return nil, []Problem{{File: file, Line: 1, Reason: fmt.Sprintf("the file has more than %d bytes", maxFile)}}
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	for i := 0; ; i++ {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, problems
		}
		if err != nil {
			line, reason := yamlError(err)
			return docs, append(problems, Problem{File: file, Line: line, Reason: reason})
		}
		if i == maxDocuments {
			return docs, append(problems, Problem{File: file, Line: n.Line, Reason: fmt.Sprintf("more than %d documents", maxDocuments)})
		}
		if len(n.Content) == 0 || n.Content[0].Tag == "!!null" {
			continue
		}
		p := &parsed{}
		p.File, p.Line = file, n.Content[0].Line
		if err := p.read(n.Content[0]); err != nil {
			problem := Problem{File: file, Line: p.Line, Rule: p.Title, Reason: err.Error()}
			var f *fault
			if errors.As(err, &f) {
				problem.Line, problem.Reason = f.line, f.reason
			}
			problems = append(problems, problem)
			continue
		}
		docs = append(docs, p)
	}
}

// yamlError takes the line out of an error of the YAML library.
func yamlError(err error) (line int, reason string) {
	reason = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(reason, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return n, text
			}
		}
	}
	return 1, reason
}

// read reads a document.
func (p *parsed) read(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "a rule is a map")
	}
	var detection, correlation, filter, silence, own *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i].Value, real(n.Content[i+1])
		var err error
		switch key {
		case "title":
			p.Title, err = text(v)
		case "id":
			p.ID, err = text(v)
		case "name":
			p.Name, err = text(v)
		case "status":
			p.Status, err = text(v)
		case "description":
			p.Description, err = text(v)
		case "author":
			p.Author, err = text(v)
		case "level":
			if p.Level, err = text(v); err == nil && !slices.Contains(event.Levels, strings.ToLower(p.Level)) {
				err = faultf(v.Line, "level %q is none of %s", p.Level, strings.Join(event.Levels, ", "))
			}
			p.Level = strings.ToLower(p.Level)
		case "tags":
			p.Tags, err = texts(v)
		case "references":
			p.References, err = texts(v)
		case "falsepositives":
			p.FalsePositives, err = texts(v)
		case "logsource":
			p.sourceGiven = true
			err = p.readSource(v)
		case "action":
			err = faultf(v.Line, "action is of Sigma before version 2; write each rule out")
		case "detection":
			detection = v
		case "correlation":
			correlation = v
		case "filter":
			filter = v
		case "silence":
			silence = v
		case "goshawk":
			own = v
		}
		if err != nil {
			return err
		}
	}
	if p.Title == "" {
		return faultf(n.Line, "the rule has no title")
	}
	if p.ID == "" {
		if p.ID = p.Name; p.ID == "" {
			p.ID = p.Title
		}
	}
	if p.Level == "" {
		p.Level = "medium" // as Sigma's converters take it
	}
	if own != nil {
		if err := p.throttle.read(own); err != nil {
			return err
		}
	}
	switch {
	case correlation != nil:
		return p.readCorrelation(correlation)
	case filter != nil:
		return p.readFilter(filter)
	case silence != nil:
		return p.readSilence(silence)
	case detection != nil:
		if !p.sourceGiven {
			return faultf(n.Line, "the rule has no logsource")
		}
		var err error
		p.condition, err = readDetection(detection, nil)
		return err
	}
	return faultf(n.Line, "the document has no detection, correlation, filter or silence")
}

func (p *parsed) readSource(n *yaml.Node) error {
	p.source.line = n.Line
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "logsource is a map of category, product and service")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		s, err := text(real(n.Content[i+1]))
		switch key := n.Content[i].Value; key {
		case "category":
			p.source.category = s
		case "product":
			p.source.product = s
		case "service":
			p.source.service = s
		case "definition":
		default:
			continue // custom
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDetection reads searches and the condition over them. skip names keys that are neither.
func readDetection(n *yaml.Node, skip []string) (*node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, faultf(n.Line, "detection is a map of searches and a condition")
	}
	p := &searchParser{}
	searches := make(map[string]*node)
	var condition *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i].Value; {
		case key == "condition":
			condition = real(n.Content[i+1])
		case key == "timeframe":
			return nil, faultf(n.Content[i].Line, "timeframe is of Sigma before version 2; write a correlation rule")
		case slices.Contains(skip, key):
		default:
			s, err := p.search(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			searches[key] = s
		}
	}
	if condition == nil {
		return nil, faultf(n.Line, "detection has no condition")
	}
	used := make(map[string]bool)
	conditions := []*yaml.Node{condition}
	if condition.Kind == yaml.SequenceNode {
		conditions = condition.Content
	}
	var kids []*node
	for _, c := range conditions {
		s, err := text(real(c))
		if err != nil {
			return nil, err
		}
		kid, err := parseCondition(c.Line, s, searches, used)
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
	}
	if len(kids) == 0 {
		return nil, faultf(condition.Line, "the condition is empty")
	}
	return any1(kids...), nil
}

func text(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", faultf(n.Line, "a text is expected")
	}
	return strings.TrimSpace(n.Value), nil
}

// texts reads a list of texts, or one.
func texts(n *yaml.Node) ([]string, error) {
	if n.Kind == yaml.ScalarNode {
		if n.Tag == "!!null" || n.Value == "" {
			return nil, nil
		}
		return []string{n.Value}, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, faultf(n.Line, "a list of texts is expected")
	}
	var out []string
	for _, c := range n.Content {
		s, err := text(real(c))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// readFilter reads a Sigma filter: a condition that is added to that of the rules it names.
func (p *parsed) readFilter(n *yaml.Node) (err error) {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "filter is a map of rules, searches and a condition")
	}
	p.filter = []string{"any"}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "rules" {
			list, err := texts(real(n.Content[i+1]))
			if err != nil {
				return err
			}
			if len(list) > 0 {
				p.filter = list
			}
		}
	}
	p.condition, err = readDetection(n, []string{"rules"})
	return err
}

// silence is a time in which rules raise no alerts.
type silence struct {
	rules       []string
	from, until time.Time // zero: unbounded
}

func (p *parsed) readSilence(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "silence is a map of rules, from and until")
	}
	s := &silence{rules: []string{"any"}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := real(n.Content[i+1])
		var err error
		switch key := n.Content[i].Value; key {
		case "rules":
			s.rules, err = texts(v)
		case "from":
			s.from, err = instant(v)
		case "until":
			s.until, err = instant(v)
		default:
			err = faultf(n.Content[i].Line, "silence has no %q: rules, from and until", key)
		}
		if err != nil {
			return err
		}
	}
	if s.until.IsZero() {
		return faultf(n.Line, "silence has no until: one without an end is better written as a filter")
	}
	p.silence = s
	return nil
}

func instant(n *yaml.Node) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		return t, faultf(n.Line, "time %q: use 2026-11-29T04:00:00Z", n.Value)
	}
	return t, nil
}

// throttle bounds how often a rule raises alerts of the same values.
type throttle struct {
	every time.Duration // 0: maxAlerts alone
	by    []string      // fields; none: all alerts of the rule are alike
	line  int
}

func (t *throttle) read(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "goshawk is a map of throttle and by")
	}
	t.line = n.Line
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := real(n.Content[i+1])
		var err error
		switch key := n.Content[i].Value; key {
		case "throttle":
			t.every, err = timespan(v)
		case "by":
			t.by, err = texts(v)
		default:
			err = faultf(n.Content[i].Line, "goshawk has no %q: throttle and by", key)
		}
		if err != nil {
			return err
		}
	}
	if t.every == 0 && len(t.by) > 0 {
		return faultf(n.Line, "by has nothing to do without throttle")
	}
	return nil
}

// timespan reads a number with a unit: s, m, h or d.
func timespan(n *yaml.Node) (time.Duration, error) {
	s := n.Value
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	if s != "" {
		if unit, ok := units[s[len(s)-1]]; ok {
			if k, err := strconv.ParseUint(s[:len(s)-1], 10, 32); err == nil && k > 0 && k <= uint64(365*24*time.Hour/unit) {
				return time.Duration(k) * unit, nil
			}
		}
	}
	return 0, faultf(n.Line, "time span %q: use a number with s, m, h or d, a year at most", s)
}
