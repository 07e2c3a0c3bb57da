package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A runtime that gives hostile names, one that answers 100 MB, and one that never answers:
// what happens in containers is told, under bounded names that no terminal obeys, and what
// went wrong is counted.
func TestLiveHostileRuntimes(t *testing.T) {
	c := newBench(t)
	engine := c.oci("runc", "runc")
	keepDelegation(t)
	id := strings.Repeat("0badc0de", 8)
	name := "../../etc/passwd\n\x1b[2J\x00" + "shop"
	image := strings.Repeat("i", 5000)
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", c.path(name))
		mustDo(t, err)
		t.Cleanup(func() { l.Close() })
		return l
	}
	liar := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/events":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case r.URL.Path == "/containers/json":
			fmt.Fprint(w, "[]")
		case strings.HasPrefix(r.URL.Path, "/containers/"): // whichever was asked for
			fmt.Fprintf(w, `{"Id":%q,"Name":"/../../etc/passwd\n\u001b[2J\u0000shop","Config":{"Image":%q,"Labels":{"a\n":"\u001b]0;owned\u0007"}}}`, id, image)
		default:
			http.NotFound(w, r)
		}
	})}
	flood := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := []byte(strings.Repeat(" ", 1<<20))
		w.Write([]byte("["))
		for range 100 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}
	go liar.Serve(listen("liar.sock"))
	go flood.Serve(listen("flood.sock"))
	t.Cleanup(func() { liar.Close(); flood.Close() })
	hang := listen("hang.sock")
	go func() {
		var all []net.Conn
		for {
			conn, err := hang.Accept()
			if err != nil {
				for _, c := range all {
					c.Close()
				}
				return
			}
			all = append(all, conn)
		}
	}()

	root := t.TempDir()
	l := startRun(t, root, "--kinds", "exec,exit,container", "--container-runtime",
		fmt.Sprintf("docker=%s,podman=%s,containerd=%s", c.path("liar.sock"), c.path("flood.sock"), c.path("hang.sock")))

	run := func(token, id, cgroup string) {
		bundle := c.path(token)
		mustDo(t, os.Mkdir(bundle, 0o755))
		mustDo(t, os.WriteFile(filepath.Join(bundle, "config.json"), ociSpec(c.rootfs, nil, cgroup, "/entry", token, "1"), 0o644))
		command(t, nil, "runc", "run", "-d", "--bundle", bundle, id)
		t.Cleanup(func() { tryCommand(t, nil, "runc", "delete", "-f", id) })
	}
	top := "/goshawk-evil \t\x1b[31m/.../" + strings.Repeat("x", 200)
	run("evil", id, top+"/docker-"+id+".scope")
	neighbour := &box{engine: "runc", name: "goshawk-neighbour", token: "neighbour", port: 41201}
	engine.run(t, neighbour)

	ask := func(sql string) []map[string]string { return query(t, root, sql) }
	within(t, "the container has its name, and the losses their number", func() bool {
		rows := ask("SELECT container_name, image, labels FROM container_events WHERE container_id = '" + id + "' AND container_name <> '' ORDER BY eid DESC LIMIT 1")
		asked := ask("SELECT failures FROM goshawk_sources WHERE source = 'runtime' AND failures LIKE '%too_large=%' AND failures LIKE '%no_answer=%'")
		return len(rows) == 1 && strings.HasPrefix(rows[0]["container_name"], "../../etc/passwd") && len(asked) == 1
	}, func() string {
		return fmt.Sprint(ask("SELECT * FROM goshawk_sources WHERE source = 'runtime'"), ask("SELECT container_id, container_name, operation FROM container_events"))
	})
	rows := ask("SELECT DISTINCT container_name, image, labels FROM container_events WHERE container_id = '" + id + "' AND image <> ''")
	check(t, "names", rows, []map[string]string{{"container_name": name, "image": image[:4096], "labels": `{"a\n":"\u001b]0;owned\u0007"}`}})
	rows = ask("SELECT DISTINCT container_name FROM exec_events WHERE container_id = 'goshawk-neighbour'")
	check(t, "the neighbour", rows, []map[string]string{{"container_name": "goshawk-neighbour"}})
	within(t, "programs are told", func() bool {
		return len(ask("SELECT 1 FROM exec_events WHERE container_id = '"+id+"' AND container_name <> ''")) > 0
	})
	if n := peak(t, l.cmd.Process.Pid); n > 100<<20 {
		t.Errorf("%d bytes of peak memory", n)
	}
	if code, stderr := l.stop(os.Interrupt); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	b, err := os.ReadFile(l.out)
	mustDo(t, err)
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d\d\d \w+ `)
	for text := range strings.Lines(string(b)) {
		text = strings.TrimSuffix(text, "\n")
		if !line.MatchString(text) || slices.ContainsFunc([]rune(text), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("a line that a terminal may obey, or that is no event's own: %q", text)
		}
	}
}
