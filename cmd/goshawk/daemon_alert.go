package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/state"
)

// alertQuery is what the query of alerts' log lines is called: no scheduled query was asked.
const alertQuery = "goshawk_alerts"

// alertLines makes log lines of alerts as they are raised, each as a scheduled query over the
// table alerts would have it, and queues them for the loggers of results. What the disk does not
// take waits in memory, up to sink.DefaultQueue.
type alertLines struct {
	d       *daemon
	columns []*event.Column
	names   []string
	row     []schema.Value
}

func (d *daemon) alertOutput(ctx context.Context) agent.Output {
	l := &alertLines{d: d}
	k := event.ByID(event.KindAlert)
	for i := range k.Columns {
		if c := &k.Columns[i]; !c.Has(schema.Internal) {
			l.columns, l.names = append(l.columns, c), append(l.names, c.Name)
		}
	}
	s := sink.NewStream(queueOf{d, ctx}, sink.Options{Name: "alert_log", Encode: l.encode, Filter: func(e event.Event) bool {
		return e.Head().Kind == event.KindAlert && !d.f().Bool("disable_logging")
	}})
	return agent.Output{Name: "alert_log", Sink: s, Counts: s.Counts, Close: s.Close}
}

// encode appends the line of an alert; of a loss nothing, which the stream always hands over.
func (l *alertLines) encode(dst []byte, e event.Event) []byte {
	if e.Head().Kind != event.KindAlert {
		return dst
	}
	l.row = l.row[:0]
	for _, c := range l.columns {
		l.row = append(l.row, c.Value(e))
	}
	f := l.d.f()
	head := schedule.Head{Name: alertQuery, Host: l.d.hostIdentifier(), Time: time.Unix(0, e.Head().Time),
		Decorations: l.d.scheduler.Decorations()}
	format := schedule.Format{Events: true, Numerics: f.Bool("logger_numerics"), TopLevel: f.Bool("decorations_top_level"), Null: f.String("nullvalue")}
	return schedule.AppendEvent(dst, &head, &format, l.names, l.row)
}

// queueOf is the daemon's queues of results as a writer of whole lines.
type queueOf struct {
	d   *daemon
	ctx context.Context
}

func (q queueOf) Write(lines []byte) (int, error) {
	for n := 0; ; n++ {
		err := q.d.state.Update(true, func(tx *state.Tx) error {
			for _, s := range q.d.loggers.results {
				if err := tx.Add(s, lines); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			return len(lines), nil
		}
		if n == 0 {
			q.d.warn(fmt.Sprintf("queue alerts: %v: they wait", err))
		}
		if q.d.sleep(q.ctx, time.Second) != nil {
			return 0, err
		}
	}
}

// found raises alerts for the rows of a scheduled query that is marked as detection.
func (d *daemon) found(f schedule.Finding) {
	id := "query:" + f.Query.Name
	if det := d.watch.detection; det != nil && det.engine.Silenced(id, d.now().UnixNano(), uint64(len(f.Rows))+f.More) {
		return
	}
	alerts := make([]*event.Alert, 0, len(f.Rows))
	for _, row := range f.Rows {
		alerts = append(alerts, d.alertOf(&f, id, row))
	}
	if len(alerts) > 0 {
		alerts[0].Suppressed = f.More
	}
	if err := d.agent.Raise(context.Background(), alerts); err != nil {
		d.warn(fmt.Sprintf("query %s: %d alerts are lost: %v", f.Query.Name, len(alerts), err))
	}
}

// alertOf makes an alert of a row: its columns pid, path, uid, process_id and so on say who did it,
// and eid which event proves it.
func (d *daemon) alertOf(f *schedule.Finding, id string, row []schema.Value) *event.Alert {
	det := f.Query.Detection
	a := &event.Alert{RuleID: id, RuleName: det.Title, Level: det.Level, Description: det.Description}
	if a.RuleName == "" {
		a.RuleName = f.Query.Name
	}
	if len(det.Tags) > 0 {
		a.Tags = strings.Join(det.Tags, "\x00") + "\x00"
	}
	d.stamp(a)
	var eid int64
	var process string
	var summary []byte
	for i, name := range f.Columns {
		text := schedule.CellText(row[i], "")
		n, err := strconv.ParseInt(text, 10, 64)
		number := err == nil && n >= 0
		switch {
		case name == "path":
			a.Path = text
		case name == "process_id":
			process = text
		case name == "eid" && number:
			eid = n
		case name == "pid" && number && n <= 1<<32-1:
			a.PID = uint32(n)
		case name == "uid" && number && n <= 1<<32-1:
			a.UID = uint32(n)
		}
		if len(summary) < maxSummary && text != "" {
			if i > 0 {
				summary = append(summary, ' ')
			}
			summary = append(append(append(summary, name...), '='), text[:min(len(text), maxSummary)]...)
		}
	}
	a.Summary = strings.ToValidUTF8(string(summary), "")
	if boot, start := splitProcessID(process); start != 0 && strings.HasPrefix(a.BootID, boot) {
		a.Start = start
	}
	evidence := append([]byte(nil), `[{"table":`...)
	evidence = schema.AppendString(evidence, strings.Join(f.Tables, ","))
	if eid > 0 {
		a.Proof = []int64{eid}
		evidence = strconv.AppendInt(append(evidence, `,"eid":`...), eid, 10)
	}
	if process != "" {
		evidence = schema.AppendString(append(evidence, `,"process_id":`...), process)
	}
	a.Evidence = string(append(evidence, "}]"...))
	return a
}

// maxSummary bounds what an alert says of a row.
const maxSummary = 300

// What the state says of the daemon that runs: pid, boot and since when.
const (
	domainDaemon = "daemon"
	keyRunning   = "running"
)

// begin finds out whether the daemon before this one has closed its state, as one does that is
// asked to end, and says so where it has not.
func (d *daemon) begin() {
	was, unclosed, err := d.state.Get(domainDaemon, keyRunning)
	if err == nil {
		err = d.state.Put(domainDaemon, keyRunning, fmt.Sprintf("%d %s %s", os.Getpid(), d.watch.bootID, d.now().UTC().Format(time.RFC3339)))
		d.begun = err == nil
	}
	if err != nil {
		d.warn(fmt.Sprintf("note that this daemon runs: %v", err))
		return
	}
	var pid int
	var boot, since string
	if n, _ := fmt.Sscan(was, &pid, &boot, &since); !unclosed || n != 3 {
		return
	}
	if boot != d.watch.bootID {
		d.logger.Error(fmt.Sprintf("the daemon before this one (pid %d, since %s) did not end by itself: the host went down with it", pid, since))
		return
	}
	d.killed = fmt.Sprintf("the daemon before this one (pid %d, since %s) did not end by itself: it was killed, or died", pid, since)
	switch {
	case d.death == "":
	case strings.Contains(d.death, " ended by "): // a signal of somebody's, and has been said
		return
	default: // it came to its limits
		d.killed = ""
		return
	}
	d.logger.Error(d.killed)
}

// tellKilled raises an alert for the end of the daemon before this one.
func (d *daemon) tellKilled(ctx context.Context) {
	a := &event.Alert{
		RuleID: "goshawk:killed", RuleName: "Goshawk killed", Level: "high", Summary: d.killed, Evidence: "[]",
		Tags:        "attack.defense-evasion\x00attack.t1562.001\x00",
		Description: "The daemon ended without being asked to: somebody may have wanted nothing to be seen. The events around this time say who sent signals",
	}
	d.stamp(a)
	if det := d.watch.detection; det != nil && det.engine.Silenced(a.RuleID, a.Time, 1) {
		return
	}
	if err := d.agent.Raise(ctx, []*event.Alert{a}); err != nil && ctx.Err() == nil {
		d.warn(fmt.Sprintf("raise an alert: %v", err))
	}
}

// stamp says of an alert that no event is behind it.
func (d *daemon) stamp(a *event.Alert) {
	a.Kind, a.Source, a.Fidelity, a.BootID = event.KindAlert, "agent", event.FidelityState, d.watch.bootID
	a.Time = d.now().UnixNano()
	a.NTime = event.BootNow()
	a.UID, a.GID, a.EUID, a.EGID = event.Unset, event.Unset, event.Unset, event.Unset
	a.AUID, a.Session = event.Unset, event.Unset
}
