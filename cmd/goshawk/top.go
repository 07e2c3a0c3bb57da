package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/ctl"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

const (
	minInterval = 100 * time.Millisecond
	maxPrograms = 40 // more fit on no screen
)

func newTop() *cobra.Command {
	h := &host{}
	t := &top{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch which kinds of event and which programs are busiest",
		Long: `Show what the running agent is told most of: events a second by kind, with what was lost,
and the programs, with their containers, that most events of the last minute are about.

On a terminal the screen is drawn anew each interval; q ends it, space holds it. Otherwise
the same is written as text, once each interval.`,
		Example: `  goshawk top
  goshawk top --interval 10s --window 10m
  goshawk top --count 1 | head`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case t.interval < minInterval:
				return failf(exitUsage, "--interval %v is too short; the shortest is %v", t.interval, minInterval)
			case t.window < time.Second:
				return failf(exitUsage, "--window %v is too short; the shortest is 1s", t.window)
			case t.count < 0:
				return failf(exitUsage, "--count %d is negative", t.count)
			}
			client, err := ctl.Dial(h.socketPath())
			if errors.Is(err, ctl.ErrNotRunning) {
				return failf(exitFailed, "no agent is running on this host; start one with goshawk run or goshawk daemon")
			}
			if err != nil {
				return failed(err)
			}
			t.ask = remote{client}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if !terminal(cmd.OutOrStdout()) || !terminal(cmd.InOrStdin()) {
				return failed(t.print(ctx, cmd.OutOrStdout()))
			}
			return failed(t.draw(ctx, cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
	f := cmd.Flags()
	f.DurationVar(&t.interval, "interval", 2*time.Second, "time between two looks")
	f.DurationVar(&t.window, "window", time.Minute, "how far back programs are counted")
	f.IntVar(&t.count, "count", 0, "looks after which to end; 0: none")
	h.flags(f)
	return cmd
}

// top asks an agent again and again.
type top struct {
	interval, window time.Duration
	count            int
	ask              querier
	last             look
}

// A look is what an agent said at one moment.
type look struct {
	at       time.Time
	sources  string
	kinds    []kindLook
	programs [][]string // path, container, processes, events
}

// kindLook counts the events of a kind since the agent started; rate is by the second, since the look
// before, and negative when there was none.
type kindLook struct {
	name            string
	delivered, lost int64
	rate            float64
}

// cells takes the rows of one statement as text.
type cells struct{ rows [][]schema.Value }

func (*cells) Columns([]string, []string) error { return nil }
func (*cells) Warning(string)                   {}
func (c *cells) Row(values []schema.Value) error {
	c.rows = append(c.rows, slices.Clone(values))
	return nil
}

func (t *top) rows(ctx context.Context, sql string) ([][]schema.Value, error) {
	c := &cells{}
	err := t.ask.Query(ctx, sql, c)
	return c.rows, err
}

// programsSQL counts the events of all native tables that name a program.
func programsSQL(since int64) string {
	var parts []string
	for _, k := range event.Kinds {
		part := fmt.Sprintf("SELECT path, container_name, process_id FROM %s WHERE time >= %d", k.Table, since)
		if k.ID != event.KindLoss && k.ID != event.KindContainer && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return fmt.Sprintf(`SELECT path, coalesce(container_name, ''), count(DISTINCT process_id), count(*) AS n
FROM (%s) WHERE path <> '' GROUP BY 1, 2 ORDER BY n DESC LIMIT %d`, strings.Join(parts, " UNION ALL "), maxPrograms)
}

// look asks once. Rates compare with the look before.
func (t *top) look(ctx context.Context) (look, error) {
	now := look{at: time.Now()}
	rows, err := t.rows(ctx, `SELECT kind, sum(delivered), sum(lost) FROM goshawk_sources
WHERE kind <> '' AND source IN (SELECT source FROM goshawk_hooks) GROUP BY kind ORDER BY 2 DESC`)
	if err != nil {
		return now, err
	}
	for _, r := range rows {
		k := kindLook{name: r[0].Text(), delivered: r[1].Int(), lost: r[2].Int(), rate: -1}
		for _, before := range t.last.kinds {
			if before.name == k.name {
				k.rate = max(0, float64(k.delivered-before.delivered)/now.at.Sub(t.last.at).Seconds())
			}
		}
		now.kinds = append(now.kinds, k)
	}
	if rows, err = t.rows(ctx, "SELECT group_concat(DISTINCT source) FROM goshawk_hooks WHERE tier <> ''"); err != nil {
		return now, err
	}
	if len(rows) == 1 {
		now.sources = rows[0][0].Text()
	}
	if rows, err = t.rows(ctx, programsSQL(now.at.Add(-t.window).Unix())); err != nil {
		return now, err
	}
	for _, r := range rows {
		now.programs = append(now.programs, []string{safe(r[0].Text()), safe(r[1].Text()), r[2].Text(), r[3].Text()})
	}
	t.last = now
	return now, nil
}

// head is the line above all: how much there is, and whether anything was lost.
func (l *look) head() string {
	var rate float64
	var lost int64
	for _, k := range l.kinds {
		rate += max(0, k.rate)
		lost += k.lost
	}
	return fmt.Sprintf("goshawk %s  source=%s  %.1f events/s  lost %d", l.at.Format(time.TimeOnly), l.sources, rate, lost)
}

// tables are the kinds and the programs, at most so many lines of each (0: all).
func (l *look) tables(window time.Duration, kinds, programs int) (string, string) {
	cut := func(n, most int) int {
		if most > 0 {
			return min(n, most)
		}
		return n
	}
	var a, b strings.Builder
	w := tabwriter.NewWriter(&a, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tPER SECOND\tTOLD\tLOST")
	for _, k := range l.kinds[:cut(len(l.kinds), kinds)] {
		rate := "-"
		if k.rate >= 0 {
			rate = fmt.Sprintf("%.1f", k.rate)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", k.name, rate, k.delivered, k.lost)
	}
	w.Flush()
	w = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "EVENTS\tPROCESSES\tCONTAINER\tPROGRAM (of the last %v)\n", window)
	for _, p := range l.programs[:cut(len(l.programs), programs)] {
		container := p[1]
		if container == "" {
			container = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p[3], p[2], container, p[0])
	}
	w.Flush()
	return a.String(), b.String()
}

// print writes a look each interval, until ctx ends or count was reached.
func (t *top) print(ctx context.Context, w io.Writer) error {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		l, err := t.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		kinds, programs := l.tables(t.window, 0, 0)
		if _, err := fmt.Fprintf(w, "%s\n\n%s\n%s\n", l.head(), kinds, programs); err != nil {
			return err
		}
		if n == t.count {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// draw shows looks on a screen.
func (t *top) draw(ctx context.Context, in io.Reader, out io.Writer) error {
	s := &topScreen{top: t, ctx: ctx, height: 24}
	_, err := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.err)
}

// topScreen is the state of the terminal: a tea.Model.
type topScreen struct {
	*top
	ctx           context.Context
	now           look
	err           error
	looks         int
	width, height int
	held, asking  bool
}

type (
	looked struct {
		look
		err error
	}
	due struct{}
)

var (
	bold = lipgloss.NewStyle().Bold(true)
	dim  = lipgloss.NewStyle().Faint(true)
	red  = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
)

// Init implements tea.Model.
func (s *topScreen) Init() tea.Cmd { return s.next() }

// next asks the agent away from the screen.
func (s *topScreen) next() tea.Cmd {
	s.asking = true
	return func() tea.Msg {
		l, err := s.top.look(s.ctx)
		return looked{l, err}
	}
}

// Update implements tea.Model.
func (s *topScreen) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
	case tea.KeyPressMsg:
		switch m.String() {
		case "q", "esc", "ctrl+c":
			return s, tea.Quit
		case "space":
			s.held = !s.held
		}
	case looked:
		s.asking = false
		if m.err != nil {
			s.err = m.err
			return s, tea.Quit
		}
		if !s.held {
			s.now = m.look
		}
		if s.looks++; s.looks == s.count {
			return s, tea.Quit
		}
		return s, tea.Tick(s.interval, func(time.Time) tea.Msg { return due{} })
	case due:
		if !s.asking {
			return s, s.next()
		}
	}
	return s, nil
}

// View implements tea.Model.
func (s *topScreen) View() tea.View {
	if s.now.at.IsZero() {
		return tea.NewView("asking the agent")
	}
	kinds := min(len(s.now.kinds), max(3, s.height/3))
	a, b := s.now.tables(s.window, kinds, max(1, s.height-kinds-7))
	head := bold.Render(s.now.head())
	if !strings.HasSuffix(s.now.head(), "lost 0") {
		head = red.Render(s.now.head())
	}
	keys := "q end  space hold"
	if s.held {
		keys = "held: space goes on  q end"
	}
	text := head + "\n\n" + a + "\n" + b + "\n" + dim.Render(keys)
	if s.width > 0 {
		text = lipgloss.NewStyle().MaxWidth(s.width).MaxHeight(s.height).Render(text)
	}
	v := tea.NewView(text)
	v.AltScreen = true
	return v
}
