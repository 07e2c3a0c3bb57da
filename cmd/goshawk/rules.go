package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/rule"
	"github.com/goshawk-project/goshawk/internal/sink"
)

func newRules() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Check, try and list detection rules",
		Long: `Check, try and list detection rules in Sigma's language, as goshawk run --rules and the
daemon's --rules match them. A directory is read with all below it: every .yml and .yaml
file. The word builtin stands for the rules that come with goshawk.`,
		Example: `  goshawk rules list
  goshawk rules check /etc/goshawk/rules
  goshawk rules test builtin --events recorded.json`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRulesCheck(), newRulesTest(), newRulesList(), newRulesSilence())
	return cmd
}

func newRulesCheck() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check DIR...",
		Short: "Say which rules cannot be used, and why",
		Long: `Compile all rules of the directories and say which cannot be used, with file, line and
reason; and which can in part, as one that asks for a field that no event has.`,
		Example: `  goshawk rules check /etc/goshawk/rules
  goshawk rules check /etc/goshawk/rules --format json`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if format != "text" && format != "json" {
				return failf(exitUsage, "no format is called %q; formats are text, json", format)
			}
			set, err := loadRules(dirs, false)
			if err != nil {
				return failed(err)
			}
			out := cmd.OutOrStdout()
			bad, err := listProblems(out, set, format)
			if err != nil {
				return failed(err)
			}
			if bad > 0 {
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "how to print: text or json")
	return cmd
}

// problemText is why a rule is not used, or only in part, as JSON.
type problemText struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Title  string `json:"rule_name,omitempty"`
	Reason string `json:"reason"`
	Partly bool   `json:"partly"`
}

// listProblems prints what of a set is not used, and returns how many rules cannot be.
func listProblems(out io.Writer, set *rule.Set, format string) (bad int, err error) {
	all := struct {
		Rules    int           `json:"rules"`
		Problems []problemText `json:"problems"`
	}{len(set.Rules), []problemText{}}
	var text strings.Builder
	for _, p := range set.Problems {
		all.Problems = append(all.Problems, problemText{p.File, p.Line, p.Rule, p.Reason, p.Partly})
		if p.Partly {
			text.WriteString("partly: ")
		} else {
			bad++
		}
		fmt.Fprintln(&text, p)
	}
	if format == "json" {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return bad, e.Encode(all)
	}
	_, err = fmt.Fprintf(out, "%s%d rules can be used, %d cannot\n", &text, len(set.Rules), bad)
	return bad, err
}

func newRulesList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list [DIR...]",
		Short: "List the rules that can be used",
		Long: `List the rules of the directories that can be used, with their levels, what events they
look at, and ATT&CK's techniques. Without a directory: those that come with goshawk.`,
		Example: `  goshawk rules list
  goshawk rules list /etc/goshawk/rules --format json`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if format != "table" && format != "json" {
				return failf(exitUsage, "no format is called %q; formats are table, json", format)
			}
			if len(dirs) == 0 {
				dirs = []string{builtinRules}
			}
			set, err := loadRules(dirs, false)
			if err != nil {
				return failed(err)
			}
			return failed(listRules(cmd.OutOrStdout(), set.Rules, format))
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "how to print: table or json")
	return cmd
}

// ruleText is a rule as JSON.
type ruleText struct {
	ID             string   `json:"rule_id"`
	Title          string   `json:"rule_name"`
	Level          string   `json:"level"`
	Category       string   `json:"category"`
	Kinds          []string `json:"kinds,omitempty"`
	Tags           []string `json:"tags,omitempty"`
	Description    string   `json:"description,omitempty"`
	FalsePositives []string `json:"falsepositives,omitempty"`
	File           string   `json:"file"`
	Line           int      `json:"line"`
}

func listRules(out io.Writer, rules []*rule.Rule, format string) error {
	if format == "json" {
		all := make([]ruleText, 0, len(rules))
		for _, r := range rules {
			t := ruleText{r.ID, r.Title, r.Level, r.Category, nil, r.Tags, r.Description, r.FalsePositives, r.File, r.Line}
			for _, k := range r.Kinds {
				t.Kinds = append(t.Kinds, k.String())
			}
			all = append(all, t)
		}
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range rules {
		var techniques []string
		for _, t := range r.Tags {
			if t, ok := strings.CutPrefix(t, "attack.t"); ok {
				techniques = append(techniques, "T"+t)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Level, r.Category, plainWords(r.Title), strings.Join(techniques, " "))
	}
	return w.Flush()
}

// plainWords is a text on one line, without what a terminal would act upon.
func plainWords(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func newRulesTest() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use:   "test DIR... --events FILE",
		Short: "Match rules against recorded events",
		Long: `Match rules against recorded events, and print the alerts that they raise. The events are
those that goshawk run --format json printed, one a line; - reads standard input.`,
		Example: `  goshawk run --format json --duration 1m > recorded.json
  goshawk rules test /etc/goshawk/rules --events recorded.json`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if format != "text" && format != "json" {
				return failf(exitUsage, "no format is called %q; formats are text, json", format)
			}
			if file == "" {
				return failf(exitUsage, "--events: name the file of recorded events, or - for standard input")
			}
			set, err := loadRules(dirs, false)
			if err != nil {
				return failed(err)
			}
			for _, p := range set.Problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "goshawk: %v\n", p)
			}
			in := cmd.InOrStdin()
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return failed(err)
				}
				defer f.Close()
				in = f
			}
			return failed(testRules(set, in, cmd.OutOrStdout(), cmd.ErrOrStderr(), format))
		},
	}
	cmd.Flags().StringVar(&file, "events", "", "file of recorded events")
	cmd.Flags().StringVar(&format, "format", "text", "how to print: text or json")
	return cmd
}

// maxEventLine bounds a line of recorded events: the arguments of one exec may have 128 KiB,
// each byte of them six characters.
const maxEventLine = 4 << 20

func testRules(set *rule.Set, in io.Reader, out, errOut io.Writer, format string) error {
	users := &userNames{}
	engine := rule.NewEngine(set, rule.Options{User: users.name})
	encode := sink.NewJSON().Append
	if format == "text" {
		encode = (&sink.Text{Zone: time.Local, User: users.name}).Append
	}
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxEventLine)
	var line []byte
	events, alerts := 0, 0
	for n := 1; s.Scan(); n++ {
		if len(strings.TrimSpace(s.Text())) == 0 {
			continue
		}
		e, err := parseEvent(s.Bytes())
		if err != nil {
			return fmt.Errorf("line %d of the events: %w", n, err)
		}
		if e == nil {
			continue
		}
		events++
		for _, a := range engine.Match(e) {
			alerts++
			line = encode(line[:0], a)
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	fmt.Fprintf(errOut, "%d rules, %d events, %d alerts\n", len(set.Rules), events, alerts)
	return nil
}

func newRulesSilence() *cobra.Command {
	var span time.Duration
	var rules []string
	var reason string
	cmd := &cobra.Command{
		Use:   "silence DIR --for DURATION",
		Short: "Keep rules silent for a while, as for maintenance",
		Long: `Write a file into a directory of rules that keeps all rules silent from now on for a
while, or those named with --rule. An agent that follows the directory takes it up within
seconds. What would have been an alert meanwhile is counted as filtered. Remove the file to
end the silence early.`,
		Example: `  goshawk rules silence /etc/goshawk/rules --for 2h --reason "kernel update"
  goshawk rules silence /etc/goshawk/rules --for 30m --rule 5e0f3f5e-77ab-4c07-8a11-d15c2f1c3b10`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if span <= 0 {
				return failf(exitUsage, "--for: say for how long, as 2h")
			}
			now := time.Now().UTC().Truncate(time.Second)
			if len(rules) == 0 {
				rules = []string{"any"}
			}
			quoted := make([]string, len(rules))
			for i, r := range rules {
				b, err := json.Marshal(r) // which YAML reads too
				if err != nil {
					return failed(err)
				}
				quoted[i] = string(b)
			}
			title, err := json.Marshal("Silence: " + reason)
			if err != nil {
				return failed(err)
			}
			text := fmt.Sprintf("title: %s\nsilence:\n  rules: [%s]\n  from: %s\n  until: %s\n",
				title, strings.Join(quoted, ", "), now.Format(time.RFC3339), now.Add(span).Format(time.RFC3339))
			name := filepath.Join(dirs[0], fmt.Sprintf("silence-%d.yml", now.Unix()))
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return failed(err)
			}
			_, err = f.WriteString(text)
			if err = errors.Join(err, f.Close()); err != nil {
				return failed(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), name)
			return nil
		},
	}
	cmd.Flags().DurationVar(&span, "for", 0, "how long, as 30m or 2h")
	cmd.Flags().StringSliceVar(&rules, "rule", nil, "rules to keep silent, by id (default all)")
	cmd.Flags().StringVar(&reason, "reason", "maintenance", "why, for those who find the file")
	return cmd
}

// parseEvent reads an event that was printed as JSON; nil for an alert or a loss, which rules
// do not look at.
func parseEvent(line []byte) (event.Event, error) {
	var cells map[string]json.RawMessage
	if err := json.Unmarshal(line, &cells); err != nil {
		return nil, err
	}
	var name string
	if err := json.Unmarshal(cells["kind"], &name); err != nil {
		return nil, fmt.Errorf("it names no kind")
	}
	k := event.ByName(name)
	if k == nil {
		return nil, fmt.Errorf("no kind is called %q", name)
	}
	if k.ID == event.KindAlert || k.ID == event.KindLoss {
		return nil, nil
	}
	e := k.New()
	for i := range k.Columns {
		c := &k.Columns[i]
		if n, omits := c.Unknown(); omits && c.Int != nil {
			c.SetInt(e, n)
		}
		raw, ok := cells[c.Name]
		if !ok {
			continue
		}
		if err := setCell(c, e, raw); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	h := e.Head()
	h.Kind = k.ID
	for key, to := range map[string]*uint64{"process_id": &h.Start, "parent_process_id": &h.PStart} {
		var id string
		if json.Unmarshal(cells[key], &id) == nil {
			h.BootID, *to = splitProcessID(id)
		}
	}
	return e, nil
}
