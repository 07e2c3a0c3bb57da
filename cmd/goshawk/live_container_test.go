package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// engines starts the runtimes that the test is to try: those that are installed by `make
// test`, or in a guest, which has no other, runc. With GOSHAWK_RUNTIMES=nspawn,lxc others.
func (c *containerBench) engines() []*engine {
	names := strings.Split("runc,crun,containerd,docker,podman,rootless", ",")
	if os.Getenv("GOSHAWK_KERNELTEST") != "" {
		names = []string{"runc"}
	}
	if s := os.Getenv("GOSHAWK_RUNTIMES"); s != "" {
		names = strings.Split(s, ",")
	}
	keepDelegation(c.t)
	c.digest = makeImage(c.t, c.tar, shopImage, c.rootfs, "/entry")
	var all []*engine
	for _, name := range names {
		switch name {
		case "runc":
			all = append(all, c.oci("runc", "runc"))
		case "crun":
			all = append(all, c.oci("crun", crunCommand()...))
		case "containerd":
			all = append(all, c.containerd()...)
		case "docker":
			all = append(all, c.docker())
		case "podman":
			all = append(all, c.podman()...)
		case "rootless":
			all = append(all, c.rootless())
		case "nspawn":
			all = append(all, c.nspawn())
		case "lxc":
			all = append(all, c.lxc())
		default:
			c.t.Fatalf("GOSHAWK_RUNTIMES names %q", name)
		}
	}
	return all
}

// record is an event as it was printed.
type record map[string]any

func (r record) text(key string) string {
	switch v := r[key].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func (r record) args() []string {
	var out []string
	list, _ := r["args"].([]any)
	for _, a := range list {
		out = append(out, fmt.Sprint(a))
	}
	return out
}

// stream reads what a running agent prints, as it comes.
type stream struct {
	t       *testing.T
	file    *os.File
	rest    []byte
	records []record
}

func openStream(t *testing.T, path string) *stream {
	t.Helper()
	f, err := os.Open(path)
	mustDo(t, err)
	t.Cleanup(func() { f.Close() })
	return &stream{t: t, file: f}
}

// read takes what has come since.
func (s *stream) read() []record {
	s.t.Helper()
	var b bytes.Buffer
	_, err := b.ReadFrom(s.file)
	mustDo(s.t, err)
	s.rest = append(s.rest, b.Bytes()...)
	for {
		line, rest, ok := bytes.Cut(s.rest, []byte{'\n'})
		if !ok {
			return s.records
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		var r record
		if err := d.Decode(&r); err != nil {
			s.t.Fatalf("%v in %q", err, line)
		}
		s.rest = rest
		s.records = append(s.records, r)
	}
}

// belongs reports whether a record tells of a program that a box runs.
func (b *box) belongs(r record) bool {
	switch r.text("kind") {
	case "exec":
		return strings.HasPrefix(filepath.Base(r.text("path")), "busybox") && slices.Contains(r.args(), b.token)
	case "connect":
		return r.text("remote_port") == strconv.Itoa(b.port)
	case "dns":
		return strings.HasPrefix(r.text("question"), b.token+".")
	case "file":
		return strings.HasSuffix(r.text("target_path"), "/var/"+b.token)
	}
	return false
}

// TestLiveContainers starts containers of each runtime before the agent, while it starts and
// afterwards, does things in them, and looks at what is told of it.
func TestLiveContainers(t *testing.T) {
	c := newBench(t)
	engines := c.engines()
	var boxes []*box
	start := func(t *testing.T, when string) {
		t.Run(when, func(t *testing.T) {
			for _, e := range engines {
				b := &box{engine: e.name, port: 41000 + len(boxes), watched: e.watch != ""}
				b.token = fmt.Sprintf("%s%d", when, len(boxes))
				b.name = "goshawk-" + b.token
				boxes = append(boxes, b)
				t.Run(e.name, func(t *testing.T) {
					t.Parallel()
					e.run(t, b)
				})
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	byBox := func(b *box) *engine {
		return engines[slices.IndexFunc(engines, func(e *engine) bool { return e.name == b.engine })]
	}
	each := func(name string, do func(t *testing.T, e *engine, b *box)) {
		t.Run(name, func(t *testing.T) {
			for _, b := range boxes {
				t.Run(b.engine+" "+b.token, func(t *testing.T) {
					t.Parallel()
					do(t, byBox(b), b)
				})
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}

	start(t, "before")
	starting := make(chan *live)
	root := t.TempDir()
	go func() { // the agent is ready at some time while containers start
		defer close(starting)
		args := []string{"--format", "json"}
		for _, e := range engines {
			if e.watch != "" {
				args = append(args, "--watch", e.watch+"/var/%%")
			}
		}
		starting <- startRun(t, root, args...)
	}()
	start(t, "between")
	l, ok := <-starting
	if !ok {
		t.FailNow()
	}
	s := openStream(t, l.out)
	start(t, "after")
	filters := []*filtered{{flag: "--container", value: boxes[0].name, is: func(b *box) bool { return b == boxes[0] }}}
	if i := slices.IndexFunc(boxes, func(b *box) bool { return b.engine == "cri" }); i >= 0 {
		filters = append(filters,
			&filtered{flag: "--pod", value: "shop/" + boxes[i].pod, is: func(b *box) bool { return b == boxes[i] }},
			&filtered{flag: "--container", value: boxes[i].id[:12], is: func(b *box) bool { return b == boxes[i] }})
	}
	for _, f := range filters {
		f.agent = startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,exit,container", f.flag, f.value)
		f.stream = openStream(t, f.agent.out)
	}
	each("exec", func(t *testing.T, e *engine, b *box) { e.exec(t, b, "/work", b.token, strconv.Itoa(b.port)) })
	for _, b := range boxes {
		b.pid = b.first(t)
	}

	missing := ""
	within(t, "all is told of all containers", func() bool {
		records := s.read()
		missing = ""
		for _, b := range boxes {
			if m := b.missing(records, byBox(b)); m != "" {
				missing += fmt.Sprintf("%s %s: %s\n", b.engine, b.token, m)
			}
		}
		return missing == ""
	}, func() string { return missing })

	for _, f := range filters {
		f.check(t, boxes)
	}
	for _, e := range engines {
		if e.expose != nil {
			t.Run("exposed "+e.name, func(t *testing.T) { checkExposed(t, e, s, len(boxes)) })
		}
	}
	each("query", func(t *testing.T, e *engine, b *box) { b.query(t, root, e.want["image"], c.digest) })
	each("stop", func(t *testing.T, e *engine, b *box) { e.stop(t, b) })
	within(t, "the end of all containers is told", func() bool {
		records := s.read()
		missing = ""
		for _, b := range boxes {
			if !slices.ContainsFunc(records, func(r record) bool {
				return r.text("kind") == "container" && r.text("operation") == "stop" && r.text("container_id") == b.id && r.text("exit_code") == "7"
			}) {
				missing += fmt.Sprintf("%s %s; told was:\n", b.engine, b.token)
				for _, r := range records {
					if r.text("kind") == "container" && r.text("container_id") == b.id {
						missing += fmt.Sprintln(r)
					}
				}
			}
		}
		return missing == ""
	}, func() string { return missing })
	// Files of others on the same file system may lose their directory before they are told.
	lost := regexp.MustCompile(`\nlost: (none|file \d+ \(ebpf, path_unknown\))\n`)
	if code, stderr := l.stop(os.Interrupt); code != 0 || !lost.MatchString(stderr) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	checkAttribution(t, boxes, s.read())
}

// filtered is an agent that prints the events of one container, or one pod.
type filtered struct {
	flag, value string
	is          func(*box) bool
	agent       *live
	stream      *stream
}

// check ends the agent and looks at what it has printed.
func (f *filtered) check(t *testing.T, boxes []*box) {
	t.Helper()
	var own *box
	for _, b := range boxes {
		if f.is(b) {
			own = b
		}
	}
	within(t, f.flag+" "+f.value+" prints", func() bool {
		return slices.ContainsFunc(f.stream.read(), func(r record) bool { return r.text("kind") == "exec" && own.belongs(r) })
	})
	f.agent.stop(os.Interrupt)
	for _, r := range f.stream.read() {
		if r.text("kind") != "loss" && r.text("container_id") != own.id && (f.flag != "--pod" || r.text("pod_name") != own.pod) {
			t.Errorf("%s %s: prints %v", f.flag, f.value, r)
		}
	}
}

// checkExposed runs a container that shares much with its host, and expects that its events say so.
func checkExposed(t *testing.T, e *engine, s *stream, n int) {
	b := &box{engine: e.name, name: fmt.Sprintf("goshawk-exposed%d-%s", n, e.name), token: fmt.Sprintf("exposed%d%s", n, e.name), port: 41090}
	e.expose(t, b)
	got := map[string]string{}
	within(t, "its events say what it shares", func() bool {
		for _, r := range s.read() {
			if r.text("kind") == "exec" && b.belongs(r) && r.text("container_id") == b.id && r.text("runtime_socket") != "" {
				for _, name := range []string{"host_namespaces", "container_capabilities", "container_privileged", "runtime_socket"} {
					got[name] = r.text(name)
				}
				return true
			}
		}
		return false
	})
	e.stop(t, b)
	check(t, "namespaces of the host", got["host_namespaces"], "ipc,network,pid,uts")
	if want := map[string]string{"docker": "0", "podman": "1"}[e.name]; got["container_privileged"] != want {
		t.Errorf("privileged %s, want %s", got["container_privileged"], want)
	}
	for _, c := range []string{"NET_ADMIN", "SYS_ADMIN"} {
		if !slices.Contains(strings.Split(got["container_capabilities"], ","), c) {
			t.Errorf("capabilities %s lack %s", got["container_capabilities"], c)
		}
	}
	if !strings.HasSuffix(got["runtime_socket"], "/"+e.name+".sock") {
		t.Errorf("socket %q", got["runtime_socket"])
	}
	within(t, "its end is told", func() bool {
		return slices.ContainsFunc(s.read(), func(r record) bool {
			return r.text("kind") == "container" && r.text("operation") == "stop" && r.text("container_id") == b.id && r.text("exit_code") == "7"
		})
	}, func() string {
		out := ""
		for _, r := range s.read() {
			if r.text("kind") == "container" && r.text("container_id") == b.id {
				out += fmt.Sprintln(r)
			}
		}
		return out
	})
}

// find finds the first process of a box; 0 when it is not there.
func (b *box) find() int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && bytes.HasPrefix(line, []byte("/bin/sh\x00/entry\x00"+b.token+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return pid
		}
	}
	return 0
}

// first is find for a box that must be there.
func (b *box) first(t *testing.T) int {
	t.Helper()
	pid := b.find()
	if pid == 0 {
		t.Fatalf("%s %s: no first process", b.engine, b.token)
	}
	return pid
}

// cgroup is the number of the cgroup v2 that the first process is in.
func (b *box) cgroup(t *testing.T) string {
	t.Helper()
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.pid))
	mustDo(t, err)
	for line := range strings.Lines(string(lines)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
				if _, err := os.Stat(mount + "/cgroup.procs"); err != nil {
					continue
				}
				var st syscall.Stat_t
				mustDo(t, syscall.Stat(mount+strings.TrimSpace(path), &st))
				return strconv.FormatUint(st.Ino, 10)
			}
		}
	}
	t.Fatalf("no cgroup v2 in %q", lines)
	return ""
}

// missing says what has not been told of a box, or has been told wrongly.
func (b *box) missing(records []record, e *engine) string {
	seen := map[string]bool{}
	for _, r := range records {
		if r.text("container_id") != b.id {
			continue
		}
		kind := r.text("kind")
		if kind == "container" {
			seen["container "+r.text("operation")] = true
			continue
		}
		if !b.belongs(r) || !b.whole(r, e) {
			continue
		}
		if kind == "file" && r.text("container_path") != "/var/"+b.token {
			continue
		}
		seen[kind] = true
		if kind == "exec" && strings.HasPrefix(r.text("path"), "/tmp/busybox-") && r.text("not_in_image") == "true" {
			seen["exec of a file not in the image"] = true
		}
	}
	want := []string{"exec", "connect", "dns", "container exec"}
	switch b.engine {
	case "podman rootless", "systemd-nspawn", "lxc": // whose images are copied, not laid under
	default:
		want = append(want, "exec of a file not in the image")
	}
	if b.watched {
		want = append(want, "file")
	}
	if strings.HasPrefix(b.token, "after") {
		want = append(want, "container start")
		if b.engine != "podman rootless" { // which has no cgroup of its own
			want = append(want, "container create")
		}
	}
	var lacks []string
	for _, w := range want {
		if !seen[w] {
			lacks = append(lacks, w)
		}
	}
	return strings.Join(lacks, ", ")
}

// whole reports whether a record has all columns of a container.
func (b *box) whole(r record, e *engine) bool {
	if r.text("container_name") != b.name || r.text("pod_name") != b.pod {
		return false
	}
	if r.text("container_pid") == "" && r.text("kind") != "file" { // fanotify has the host's
		return false
	}
	for name, want := range e.want {
		if r.text(name) != want {
			return false
		}
	}
	return true
}

// checkAttribution holds every record against the box that it belongs to.
func checkAttribution(t *testing.T, boxes []*box, records []record) {
	t.Helper()
	owner := map[string]*box{} // by process
	since := map[string]string{}
	byID := map[string]*box{}
	for _, b := range boxes {
		byID[b.id] = b
	}
	for _, r := range records {
		id := r.text("container_id")
		for _, b := range boxes {
			if !b.belongs(r) {
				continue
			}
			if id != b.id {
				t.Errorf("%s %s: an event of container %q: %v", b.engine, b.token, id, r)
			}
			if p := r.text("process_id"); p != "" && r.text("kind") == "exec" && owner[p] == nil {
				owner[p], since[p] = b, r.text("ntime")
			}
		}
		b := byID[id]
		if b == nil {
			continue
		}
		if name := r.text("container_name"); name != "" && name != b.name {
			t.Errorf("%s %s is called %q: %v", b.engine, b.token, name, r)
		}
		if image := r.text("image"); image != "" && image != shopImage {
			t.Errorf("%s %s has image %q: %v", b.engine, b.token, image, r)
		}
	}
	after := func(r record, ntime string) bool {
		a, _ := strconv.ParseUint(r.text("ntime"), 10, 64)
		b, _ := strconv.ParseUint(ntime, 10, 64)
		return a >= b
	}
	for _, r := range records {
		p := r.text("process_id")
		if b := owner[p]; b != nil && after(r, since[p]) && r.text("container_id") != b.id {
			t.Errorf("%s %s: its process is in container %q: %v", b.engine, b.token, r.text("container_id"), r)
		}
	}
}

// query asks the agent about a box while it runs.
func (b *box) query(t *testing.T, root, image, digest string) {
	rows := query(t, root, fmt.Sprintf("SELECT time, container_name, image, path, cmdline FROM process_events WHERE container_id = '%s' AND container_name <> ''", b.id))
	if !slices.ContainsFunc(rows, func(r map[string]string) bool {
		return len(r) == 5 && r["container_name"] == b.name && r["image"] == image && r["path"] == "/bin/busybox" && r["cmdline"] == "/bin/true "+b.token
	}) {
		t.Errorf("process_events has %d rows, none as wanted", len(rows))
	}
	// The files of a container, by a process in it.
	rows = query(t, root, fmt.Sprintf("SELECT h.sha256, h.pid_with_namespace, f.size, f.type FROM hash AS h JOIN file AS f USING (path, pid_with_namespace) "+
		"WHERE h.path = '/work' AND h.pid_with_namespace = %d", b.pid))
	want := []map[string]string{{"sha256": sha256Of(workScript), "pid_with_namespace": strconv.Itoa(b.pid), "size": strconv.Itoa(len(workScript)), "type": "regular"}}
	check(t, "a file in the container", rows, want)
	rows = query(t, root, fmt.Sprintf("SELECT name FROM os_version WHERE pid_with_namespace = %d", b.pid))
	check(t, "os_version", rows, []map[string]string{{"name": "Shop"}})
	// The same event in its native table, with its number and where the host sees the file.
	rows = query(t, root, fmt.Sprintf("SELECT cgroup_id, container_pid, host_path FROM exec_events WHERE container_id = '%s' AND path = '/bin/busybox' AND args LIKE '%%/bin/true%%' ORDER BY eid DESC LIMIT 1", b.id))
	if len(rows) != 1 {
		t.Fatalf("exec_events has %d rows", len(rows))
	}
	check(t, "cgroup", rows[0]["cgroup_id"], b.cgroup(t))
	life := query(t, root, fmt.Sprintf("SELECT runtime, labels, pod_uid, image_digest, image_id FROM container_events WHERE container_id = '%s' ORDER BY eid DESC LIMIT 1", b.id))
	if len(life) != 1 {
		t.Fatalf("container_events has %d rows", len(life))
	}
	// Docker and CRI know digests of what was pulled; these were loaded.
	if got := life[0]["image_digest"]; strings.HasPrefix(b.engine, "podman") && b.engine != "podman rootless" || b.engine == "containerd" {
		check(t, "digest", got, digest)
	}
	knows := map[string][2]string{
		"runc": {"runc", `"com.example.team":"payments"`}, "crun": {"crun", `"com.example.team":"payments"`},
		"docker": {"docker", `"app":"shop"`}, "containerd": {"containerd", `"app":"shop"`}, "cri": {"containerd", `"app":"web"`},
		"systemd-nspawn": {"systemd-nspawn", ""}, "lxc": {"lxc", ""},
		"podman": {"podman", `"app":"shop"`}, "podman pod": {"podman", `"com.example.team":"payments"`}, "podman rootless": {"podman", ""},
	}[b.engine]
	if life[0]["runtime"] != knows[0] || !strings.Contains(life[0]["labels"], knows[1]) || b.engine == "cri" && life[0]["pod_uid"] != b.uid {
		t.Errorf("container_events: %v, want runtime %s and labels with %s", life[0], knows[0], knows[1])
	}
	if b.engine == "docker" {
		b.queryDocker(t, root)
	}
	if image == "" {
		return // nor is its root directory known
	}
	var there, inside syscall.Stat_t
	mustDo(t, syscall.Stat(fmt.Sprintf("/proc/%d/root/bin/busybox", b.pid), &inside))
	if err := syscall.Stat(rows[0]["host_path"], &there); err != nil || there.Ino != inside.Ino || there.Size != inside.Size {
		t.Errorf("host_path %q: %v, inode %d, in the container it is %d", rows[0]["host_path"], err, there.Ino, inside.Ino)
	}
}

// queryDocker asks osquery's tables about a container of Docker's.
func (b *box) queryDocker(t *testing.T, root string) {
	one := func(want map[string]string, sql string, args ...any) {
		t.Helper()
		if rows := query(t, root, fmt.Sprintf(sql, args...)); len(rows) != 1 || fmt.Sprint(rows[0]) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", fmt.Sprintf(sql, args...), rows, want)
		}
	}
	pid := strconv.Itoa(b.pid)
	one(map[string]string{"name": "/" + b.name, "image": shopImage, "state": "running", "pid": pid, "privileged": "0"},
		"SELECT name, image, state, pid, privileged FROM docker_containers WHERE id = '%s'", b.id)
	one(map[string]string{"pid": pid, "uid": "0"}, "SELECT pid, uid FROM docker_container_processes WHERE id = '%s' AND pid = %d", b.id, b.pid)
	one(map[string]string{"value": "shop"}, "SELECT value FROM docker_container_labels WHERE id = '%s' AND key = 'app'", b.id)
	one(map[string]string{"value": "/bin"}, "SELECT value FROM docker_container_envs WHERE id = '%s' AND key = 'PATH'", b.id)
	one(map[string]string{"name": "none"}, "SELECT name FROM docker_container_networks WHERE id = '%s'", b.id)
	one(map[string]string{"n": "0"}, "SELECT count(*) AS n FROM docker_container_mounts WHERE id = '%s'", b.id)
	one(map[string]string{"n": "1"}, "SELECT count(*) AS n FROM docker_images WHERE tags = '%s'", strings.TrimPrefix(shopImage, "docker.io/"))
	one(map[string]string{"same": "1"}, "SELECT i.server_version = v.version AND i.containers_running > 0 AS same FROM docker_info AS i, docker_version AS v")
}
