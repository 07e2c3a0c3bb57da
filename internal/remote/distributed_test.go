package remote

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/goshawk-project/goshawk/internal/remotetest"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

func newDistributed(t *testing.T, c *client) *Distributed {
	t.Helper()
	type thing struct{ name string }
	things := (&schema.Table[*thing]{
		Name:    "things",
		Columns: []schema.Column[*thing]{schema.Str("name", func(r *thing) *string { return &r.name }, "")},
		Rows: func(context.Context, *schema.Query) ([]*thing, error) {
			return []*thing{{"a"}, {"b\"\xff"}}, nil
		},
	}).Bind()
	e, err := sql.Open([]schema.Relation{things}, sql.Options{Memory: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return &Distributed{
		Node: c.Node, Engine: e, Read: func() string { return remotetest.Read }, Write: func() string { return remotetest.Write },
		Attempts: func() int { return 3 }, Interval: func() time.Duration { return time.Minute }, Denylist: func() time.Duration { return 24 * time.Hour },
		LogQueries: func() bool { return false }, Text: schema.Value.Text,
		Usage: func() Usage { return Usage{} },
	}
}

// written takes what the server got: for each query its rows as JSON, status and message.
func written(s *remotetest.Server) map[string]string {
	out := map[string]string{}
	s.Do(func() {
		for _, w := range s.Written {
			for id, rows := range w.Queries {
				b, _ := json.Marshal(rows)
				out[id] = fmt.Sprint(string(b), " ", w.Statuses[id], " ", w.Messages[id])
			}
		}
		s.Written = nil
	})
	return out
}

func TestDistributed(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	d := newDistributed(t, c)
	ctx := context.Background()
	s.Queries = map[string]string{
		"ok": "SELECT name, 1 AS n, NULL AS x FROM things", "none": "SELECT * FROM things WHERE 0", "bad": "SELECT * FROM nowhere",
		"found": "SELECT 'f' AS f", "not found": "SELECT 'n' AS n", "twice": "SELECT 1 AS a, 2 AS b, 3 AS a",
	}
	s.Discovery = map[string]string{"ok": "SELECT 1", "found": "SELECT 1 FROM things", "not found": "SELECT 1 FROM things WHERE name='x'"}
	d.Once(ctx)
	want := map[string]string{
		"ok":   `[{"n":"1","name":"a","x":""},{"n":"1","name":"b\"\\xff","x":""}] 0 `,
		"none": `[] 0 `, "bad": `[] 1 no such table: nowhere`, "found": `[{"f":"f"}] 0 `, "twice": `[{"a":"3","b":"2"}] 0 `,
	}
	if diff := cmp.Diff(want, written(s)); diff != "" {
		t.Error(diff)
	}
	if list, _ := c.State.List(domainRunning); len(list) > 0 {
		t.Errorf("running %v", list)
	}
	d.Once(ctx)
	if got := written(s); len(got) > 0 {
		t.Errorf("again %v", got)
	}
	n := 0
	s.Do(func() { n = s.Requests[remotetest.Write] })
	if n != 1 {
		t.Errorf("%d writes", n)
	}
	c.hush()
}

// TestDistributedRows checks the request to the byte: columns come in the query's order.
func TestDistributedRows(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	d := newDistributed(t, c)
	var body string
	s.Queries = map[string]string{"q": "SELECT 2 AS b, 1 AS a, 3 AS c, 4 AS b"}
	s.Fault = func(w http.ResponseWriter, r *http.Request, b []byte) bool {
		if r.URL.Path == remotetest.Write {
			body = string(b)
		}
		return false
	}
	d.Once(context.Background())
	head, stats, _ := strings.Cut(body, `"stats":`)
	if want := `{"node_key":"node-key-1","queries":{"q":[{"c":"3","a":"1","b":"4"}]},"statuses":{"q":0},"messages":{"q":""},`; head != want {
		t.Errorf("request %s", body)
	}
	var got map[string]map[string]int64
	if err := json.Unmarshal([]byte(strings.TrimSuffix(stats, "}")), &got); err != nil || len(got["q"]) != 4 {
		t.Errorf("stats %s: %v", stats, err)
	}
}

func TestDistributedRefused(t *testing.T) {
	for name, answer := range map[string]string{
		"discovery fails":          `{"queries":{"q":"SELECT 1"},"discovery":{"x":"SELECT * FROM nowhere"},"accelerate":60}`,
		"discovery is empty":       `{"queries":{"q":"SELECT 1"},"discovery":{"x":""}}`,
		"a query is empty":         `{"queries":{"q":"SELECT 1","r":""}}`,
		"a query is no text":       `{"queries":{"q":"SELECT 1","r":5}}`,
		"queries are no object":    `{"queries":""}`,
		"nothing":                  `{}`,
		"accelerate is no integer": `{"accelerate":"60"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := remotetest.Start(t)
			c := newClient(t, s, nil)
			d := newDistributed(t, c)
			s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path != remotetest.Read {
					return false
				}
				io.WriteString(w, answer)
				return true
			}
			d.Once(context.Background())
			if got := written(s); len(got) > 0 || d.pause() != time.Minute {
				t.Errorf("%v, and asks again after %v", got, d.pause())
			}
		})
	}
}

func TestAccelerate(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	d := newDistributed(t, c)
	s.Accelerate = 300
	d.Once(context.Background())
	s.Do(func() { s.Accelerate = nil })
	if d.pause() != 5*time.Second {
		t.Errorf("asks again after %v", d.pause())
	}
	c.now = c.now.Add(301 * time.Second)
	if d.pause() != time.Minute {
		t.Errorf("asks again after %v", d.pause())
	}
}

// TestDistributedKept checks that a result that the server does not take comes again, also
// from another process, and that the query is not run again for it.
func TestDistributedKept(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	d := newDistributed(t, c)
	ctx := context.Background()
	s.Queries = map[string]string{"q": "SELECT 1 AS one"}
	failing := true
	s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != remotetest.Write || !failing {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, "{}")
		return true
	}
	d.Once(ctx)
	if diff := cmp.Diff([]time.Duration{time.Second, 4 * time.Second}, c.slept()); diff != "" {
		t.Error(diff)
	}
	s.Do(func() { s.Queries = map[string]string{"r": "SELECT 2 AS two"} })
	d.Once(ctx)
	if got := written(s); len(got) > 0 {
		t.Errorf("written %v", got)
	}
	s.Do(func() { failing = false })
	newDistributed(t, c).Once(ctx)
	if diff := cmp.Diff(map[string]string{"q": `[{"one":"1"}] 0 `, "r": `[{"two":"2"}] 0 `}, written(s)); diff != "" {
		t.Error(diff)
	}
}

func TestDistributedDenylist(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	d := newDistributed(t, c)
	ctx := context.Background()
	const hungry = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100000) SELECT group_concat(hex(zeroblob(100))) FROM n"
	const wide = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 30000) SELECT hex(zeroblob(500)) AS x FROM n"
	for name, query := range map[string]string{"m": hungry, "w": wide} {
		s.Do(func() { s.Queries = map[string]string{name: query} })
		d.Once(ctx)
		if got := written(s)[name]; !strings.HasPrefix(got, "[] 1 ") || strings.Contains(got, "denylisted") {
			t.Errorf("%s: %s", name, got)
		}
		s.Do(func() { s.Queries = map[string]string{name: query} })
		d.Once(ctx)
		if got := written(s)[name]; got != "[] 1 distributed query is denylisted" {
			t.Errorf("%s: %s", name, got)
		}
	}
	// The process died of a query, which is still kept.
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.State.Put(domainPending, "d", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if err := d.run(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if list, _ := c.State.List(domainPending); len(list) != 1 {
		t.Errorf("a stop takes the query away: %v", list)
	}
	d.Once(ctx)
	if got := written(s)["d"]; got != `[{"1":"1"}] 0 ` {
		t.Errorf("after a stop: %s", got)
	}
	c.now = c.now.Add(25 * time.Hour)
	if err := d.Forget(); err != nil {
		t.Fatal(err)
	}
	if list, _ := c.State.List(domainRunning); len(list) > 0 {
		t.Errorf("a day later %v", list)
	}
}

func TestCarve(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint("compress=", compress), func(t *testing.T) {
			s := remotetest.Start(t)
			c := newClient(t, s, nil)
			root := t.TempDir()
			want := map[string]string{"etc/a": "alpha", "etc/b": strings.Repeat("b", 10_000)}
			for name, text := range want {
				if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v := &Carver{
				Node: c.Node, Start: func() string { return remotetest.CarveStart }, Continue: func() string { return remotetest.CarveContinue },
				BlockSize: func() int { return 1000 }, Compress: func() bool { return compress }, Expiry: func() time.Duration { return 24 * time.Hour },
				HashMax: func() int64 { return 1 << 20 }, Root: root, Dir: t.TempDir(),
			}
			v.Init()
			failures := 2
			s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path != remotetest.CarveContinue || failures == 0 {
					return false
				}
				failures--
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			guid, err := v.Request([]string{"/etc/b", "/etc/a", "/etc/none", "/etc", "/etc/a"}, "request-1")
			if err != nil {
				t.Fatal(err)
			}
			if err := v.once(context.Background()); err != nil {
				t.Fatal(err)
			}
			list, err := v.List()
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			got := list[0]
			if got.Status != "SUCCESS" || got.GUID != guid || got.RequestID != "request-1" || got.Path != "/etc,/etc/a,/etc/b,/etc/none" || len(got.SHA256) != 64 {
				t.Errorf("carve %+v", got)
			}
			var data []byte
			s.Do(func() {
				r := s.Carves["session-1"]
				if r.ID != guid || r.Request != "request-1" || r.Size != 1000 || r.Total != got.Size || r.Blocks != (got.Size+999)/1000 || int64(len(r.Data)) != r.Blocks {
					t.Errorf("received %+v", r)
				}
				for i := range r.Blocks {
					data = append(data, r.Data[i]...)
				}
			})
			in := io.Reader(bytes.NewReader(data))
			if compress {
				z, err := zstd.NewReader(in)
				if err != nil {
					t.Fatal(err)
				}
				defer z.Close()
				in = z
			}
			files := map[string]string{}
			for archive := tar.NewReader(in); ; {
				h, err := archive.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(archive)
				if err != nil {
					t.Fatal(err)
				}
				files[h.Name] = string(b)
			}
			if diff := cmp.Diff(want, files); diff != "" {
				t.Error(diff)
			}
			if entries, _ := os.ReadDir(v.Dir); len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}

			s.Do(func() { failures = 100 })
			if _, err := v.Request([]string{"/etc/a"}, ""); err != nil {
				t.Fatal(err)
			}
			if err := v.once(context.Background()); err == nil {
				t.Error("no error")
			}
			if list, _ := v.List(); list[1].Status != "DATA POST FAILED" || len(list[1].RequestID) != 36 {
				t.Errorf("carves %+v", list)
			}
			c.now = c.now.Add(25 * time.Hour)
			if err := v.once(context.Background()); err != nil {
				t.Error(err)
			}
			if list, _ := v.List(); len(list) != 0 {
				t.Errorf("a day later: %+v", list)
			}
			c.hush()
		})
	}
}

// FuzzAnswer gives any answer to what reads answers.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"node_key":"k","node_invalid":false}`, `{"queries":{"a":"SELECT 1"},"discovery":{"a":"SELECT 1"},"accelerate":5}`,
		`{"error":"x","node_invalid":true}`, `{"queries":{"a":{}}}`, `[`, ``, "{\"error\":\"\x00\"}",
	} {
		f.Add(200, []byte(seed))
	}
	n := &Node{}
	f.Fuzz(func(t *testing.T, status int, text []byte) {
		a, err := n.read(status, text, "key")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error %q", err)
			}
			return
		}
		if status >= 400 {
			t.Errorf("status %d is taken for success", status)
		}
		for _, what := range []string{"queries", "discovery"} {
			if list, err := texts(a[what], what); err == nil {
				for id, query := range list {
					if id == "" || query == "" {
						t.Errorf("%q: %q", id, query)
					}
				}
			}
		}
	})
}
