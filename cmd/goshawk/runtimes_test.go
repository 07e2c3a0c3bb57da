package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The container runtimes that the live tests start, on a machine without a registry, and
// where the test may not raise limits (no CAP_SYS_RESOURCE).

// box is a container of a test.
type box struct {
	engine   string
	name, id string
	token    string // marks what it does
	port     int    // as well
	pod, uid string // of CRI
	pid      int    // of its first process, on the host
	watched  bool   // its files are
}

// engine starts containers of one runtime. Its functions fail the test on errors.
type engine struct {
	name string // as the column runtime has it, or with a word that tells it apart
	run  func(t *testing.T, b *box)
	exec func(t *testing.T, b *box, command ...string)
	stop func(t *testing.T, b *box) // sends SIGTERM and waits
	// expose runs a container that shares much with its host; nil: not tried.
	expose func(t *testing.T, b *box)
	want   map[string]string // columns of each event in its containers; absent: not known there
	watch  string            // pattern of its containers' root directories on the host; "": their files are not watched
}

const (
	shopImage  = "docker.io/acme/shop:1.0"
	pauseImage = "localhost/pause:1"
)

// bench is what all runtimes of a test have in common.
type containerBench struct {
	t      *testing.T
	dir    string
	rootfs string
	tar    string // shopImage
	digest string // its
}

func newBench(t *testing.T) *containerBench {
	t.Helper()
	needRoot(t)
	// Short: sockets have at most 107 bytes.
	dir, err := os.MkdirTemp("", "goshawk-box")
	mustDo(t, err)
	mustDo(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &containerBench{t: t, dir: dir, rootfs: filepath.Join(dir, "rootfs"), tar: filepath.Join(dir, "shop.tar")}
	makeRootfs(t, b.rootfs)
	return b
}

func (c *containerBench) path(names ...string) string {
	return filepath.Join(append([]string{c.dir}, names...)...)
}

// command runs a program to its end and returns its output. Its standard streams are files:
// what it leaves running would keep a pipe open.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func tryCommand(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	said, err := os.CreateTemp("", "goshawk-said")
	mustDo(t, err)
	defer os.Remove(said.Name())
	defer said.Close()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = said, said
	if err = c.Start(); err == nil {
		timer := time.AfterFunc(2*time.Minute, func() { c.Process.Kill() })
		err = c.Wait()
		timer.Stop()
	}
	b, _ := os.ReadFile(said.Name())
	return string(b), err
}

// background runs a program until the test ends, and ends it with SIGTERM. It dies with the
// test's process, too.
func background(t *testing.T, log string, name string, args ...string) {
	t.Helper()
	out, err := os.Create(log)
	mustDo(t, err)
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // whose end the kernel takes for the parent's
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			c.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			c.Process.Kill()
			<-ended
		}
		if b, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s ends its log with:\n%s", name, b[max(0, len(b)-3000):])
		}
		out.Close()
	})
}

// within waits until ready, for as long as a busy machine may need.
func within(t *testing.T, what string, ready func() bool, more ...func() string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			for _, f := range more {
				what += "\n" + f()
			}
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// listens reports whether somebody accepts connections at a unix socket.
func listens(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// noOther skips a test that would have to share a runtime's socket with the machine's own.
func noOther(t *testing.T, socket string) {
	t.Helper()
	if listens(socket) {
		t.Skipf("somebody listens at %s already: this test starts a runtime of its own", socket)
	}
}

// removeAfter removes directories that a runtime makes, unless they are there now, or
// somebody has mounted something there that stays.
func removeAfter(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if _, err := os.Stat(d); err == nil {
			continue
		}
		t.Cleanup(func() {
			if b, err := os.ReadFile("/proc/self/mounts"); err == nil {
				lines := strings.Split(string(b), "\n")
				for i := len(lines) - 1; i >= 0; i-- {
					if f := strings.Fields(lines[i]); len(f) > 1 && (f[1] == d || strings.HasPrefix(f[1], d+"/")) {
						syscall.Unmount(f[1], syscall.MNT_DETACH)
					}
				}
			}
			if err := os.RemoveAll(d); err != nil {
				t.Logf("left behind: %v", err)
			}
		})
	}
}

// removeCgroups removes empty cgroups that runtimes leave, by the top name of their paths.
func removeCgroups(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for _, name := range names {
			tops, _ := filepath.Glob("/sys/fs/cgroup/" + name)
			more, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
			for _, top := range append(tops, more...) {
				var dirs []string
				filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
					if err == nil && d.IsDir() {
						dirs = append(dirs, path)
					}
					return nil
				})
				for i := len(dirs) - 1; i >= 0; i-- {
					syscall.Rmdir(dirs[i])
				}
			}
		}
	})
}

// keepDelegation puts back which controllers of cgroup v2 are delegated: runtimes enable them.
func keepDelegation(t *testing.T) {
	for _, file := range []string{"/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/unified/cgroup.subtree_control"} {
		before, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			after, _ := os.ReadFile(file)
			for _, c := range strings.Fields(string(after)) {
				if !strings.Contains(" "+string(bytes.TrimSpace(before))+" ", " "+c+" ") {
					os.WriteFile(file, []byte("-"+c), 0o644)
				}
			}
		})
	}
}

// ociSpec is the configuration of a container for runc and crun alone.
func ociSpec(rootfs string, annotations map[string]string, cgroupsPath string, args ...string) []byte {
	type m = map[string]any
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_RAW", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	namespaces := []m{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		namespaces = append(namespaces, m{"type": "cgroup"}) // as runtimes do with v2
	}
	b, err := json.Marshal(m{
		"ociVersion": "1.0.2", "hostname": "shop", "annotations": annotations,
		"root": m{"path": rootfs},
		"process": m{
			"args": args, "cwd": "/", "env": []string{"PATH=/bin"}, "user": m{"uid": 0, "gid": 0}, "noNewPrivileges": true,
			"capabilities": m{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"mounts": []m{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
			{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=1777", "size=65536k"}},
		},
		"linux": m{"namespaces": namespaces, "cgroupsPath": cgroupsPath, "maskedPaths": []string{"/proc/kcore", "/proc/keys"}},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// oci makes an engine of runc or crun alone: command is how it is called.
func (c *containerBench) oci(name string, command0 ...string) *engine {
	t := c.t
	call := func(t *testing.T, args ...string) string {
		t.Helper()
		return command(t, nil, command0[0], append(command0[1:len(command0):len(command0)], args...)...)
	}
	t.Cleanup(func() { // those that a failed test left
		for _, file := range []string{"/run/" + name} {
			entries, _ := os.ReadDir(file)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), "goshawk-") {
					tryCommand(t, nil, command0[0], append(command0[1:len(command0):len(command0)], "delete", "-f", e.Name())...)
				}
			}
		}
	})
	removeCgroups(t, "goshawk-*")
	return &engine{
		name: name,
		run: func(t *testing.T, b *box) {
			b.id = b.name
			bundle := c.path(b.name)
			mustDo(t, os.Mkdir(bundle, 0o755))
			spec := ociSpec(c.rootfs, map[string]string{"org.opencontainers.image.ref.name": shopImage, "com.example.team": "payments"},
				"/"+b.name, "/entry", b.token, strconv.Itoa(b.port))
			mustDo(t, os.WriteFile(filepath.Join(bundle, "config.json"), spec, 0o644))
			call(t, "run", "-d", "--bundle", bundle, b.name)
		},
		exec: func(t *testing.T, b *box, args ...string) { call(t, append([]string{"exec", b.name}, args...)...) },
		stop: func(t *testing.T, b *box) {
			call(t, "kill", b.name, "TERM")
			within(t, b.name+" stops", func() bool {
				return strings.Contains(call(t, "state", b.name), `"stopped"`)
			})
			call(t, "delete", b.name)
		},
		want:  map[string]string{"image": shopImage},
		watch: c.rootfs,
	}
}

// crun refuses hybrid cgroups while v2 has controllers: hide them from it.
func crunCommand() []string {
	if b, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers"); err != nil || len(bytes.TrimSpace(b)) == 0 {
		return []string{"crun"}
	}
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind /dev/null /sys/fs/cgroup/unified/cgroup.controllers && exec crun "$@"`, "crun"}
}

// docker starts Docker; containerd runs already.
func (c *containerBench) docker() *engine {
	t := c.t
	const socket = "/run/docker.sock"
	noOther(t, socket)
	removeAfter(t, "/run/docker", "/var/lib/docker")
	removeCgroups(t, "docker")
	mustDo(t, os.WriteFile(c.path("daemon.json"), []byte("{}"), 0o644)) // not the machine's
	background(t, c.path("dockerd.log"), "dockerd", "--iptables=false", "--bridge=none", "-H", "unix://"+socket, "--data-root", c.path("docker"),
		"--pidfile", c.path("docker.pid"), "--exec-opt", "native.cgroupdriver=cgroupfs", "--config-file", c.path("daemon.json"))
	within(t, "Docker listens", func() bool { return listens(socket) })
	call := func(t *testing.T, args ...string) string {
		t.Helper()
		return command(t, nil, "docker", append([]string{"-H", "unix://" + socket}, args...)...)
	}
	call(t, "load", "-q", "-i", c.tar)
	t.Cleanup(func() {
		if out, err := tryCommand(t, nil, "docker", "-H", "unix://"+socket, "ps", "-aq"); err == nil {
			tryCommand(t, nil, "docker", append([]string{"-H", "unix://" + socket, "rm", "-f"}, strings.Fields(out)...)...)
		}
	})
	return &engine{
		name:  "docker",
		watch: c.path("docker/overlay2/%/merged"),
		run: func(t *testing.T, b *box) {
			b.id = call(t, "run", "-d", "--name", b.name, "--network", "none", "--label", "app=shop", shopImage, "/entry", b.token, strconv.Itoa(b.port))
		},
		exec: func(t *testing.T, b *box, args ...string) { call(t, append([]string{"exec", b.name}, args...)...) },
		stop: func(t *testing.T, b *box) { call(t, "stop", "-t", "30", b.name); call(t, "rm", b.name) },
		want: map[string]string{"image": shopImage},
		// --privileged asks for every capability, which this machine need not have to give.
		expose: func(t *testing.T, b *box) {
			b.id = call(t, "run", "-d", "--name", b.name, "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host",
				"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "-v", socket+":/runtime.sock", shopImage, "/entry", b.token, strconv.Itoa(b.port))
		},
	}
}

// podmanCall is how podman is called: as root, or as a user of its own.
func (c *containerBench) podmanCall() func(t *testing.T, args ...string) string {
	conf := c.path("containers.conf")
	mustDo(c.t, os.WriteFile(conf, []byte(`[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
`), 0o644))
	return func(t *testing.T, args ...string) string {
		t.Helper()
		return command(t, []string{"CONTAINERS_CONF=" + conf}, "podman", args...)
	}
}

// podman starts podman's API, and makes engines of podman alone and of podman with pods.
func (c *containerBench) podman() []*engine {
	t := c.t
	const socket = "/run/podman/podman.sock"
	noOther(t, socket)
	removeAfter(t, "/run/podman", "/run/libpod", "/run/containers", "/var/lib/containers/storage", "/var/lib/containers/cache")
	removeCgroups(t, "libpod_parent")
	call := c.podmanCall()
	call(t, "load", "-q", "-i", c.tar)
	t.Cleanup(func() { tryCommand(t, nil, "podman", "rmi", "-f", shopImage) })
	mustDo(t, os.MkdirAll(filepath.Dir(socket), 0o700))
	background(t, c.path("podman.log"), "env", "CONTAINERS_CONF="+c.path("containers.conf"), "podman", "system", "service", "-t", "0", "unix://"+socket)
	within(t, "podman listens", func() bool { return listens(socket) })
	remove := func(t *testing.T, b *box) {
		t.Cleanup(func() {
			tryCommand(t, []string{"CONTAINERS_CONF=" + c.path("containers.conf")}, "podman", "rm", "-f", "-t", "0", b.name)
		})
	}
	alone := &engine{
		name:  "podman",
		watch: "/var/lib/containers/storage/overlay/%/merged",
		run: func(t *testing.T, b *box) {
			remove(c.t, b)
			b.id = call(t, "run", "-d", "--name", b.name, "--network", "none", "--label", "app=shop", shopImage, "/entry", b.token, strconv.Itoa(b.port))
		},
		exec: func(t *testing.T, b *box, args ...string) { call(t, append([]string{"exec", b.name}, args...)...) },
		stop: func(t *testing.T, b *box) { call(t, "stop", "-t", "30", b.name); call(t, "rm", b.name) },
		want: map[string]string{"image": shopImage},
		expose: func(t *testing.T, b *box) {
			remove(c.t, b)
			b.id = call(t, "run", "-d", "--name", b.name, "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host",
				"--privileged", "-v", socket+":/runtime.sock", shopImage, "/entry", b.token, strconv.Itoa(b.port))
		},
	}
	inPod := *alone
	inPod.expose = nil
	inPod.name = "podman pod"
	inPod.run = func(t *testing.T, b *box) {
		remove(c.t, b)
		b.pod = "pod-" + b.token
		c.t.Cleanup(func() {
			tryCommand(t, []string{"CONTAINERS_CONF=" + c.path("containers.conf")}, "podman", "pod", "rm", "-f", "-t", "0", b.pod)
		})
		call(t, "pod", "create", "--name", b.pod, "--network", "none")
		b.id = call(t, "run", "-d", "--name", b.name, "--pod", b.pod, shopImage, "/entry", b.token, strconv.Itoa(b.port))
	}
	return []*engine{alone, &inPod}
}

// rootless starts containers of podman's as a user who may do nothing else.
func (c *containerBench) rootless() *engine {
	t := c.t
	name := "goshawk-test"
	if out, err := tryCommand(t, nil, "useradd", "--create-home", "--shell", "/usr/sbin/nologin", name); err != nil && !strings.Contains(out, "already exists") {
		t.Fatalf("useradd: %v\n%s", err, out)
	}
	u, err := user.Lookup(name)
	mustDo(t, err)
	run := "/run/user/" + u.Uid
	removeAfter(t, run)
	mustDo(t, os.MkdirAll(run, 0o700))
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	mustDo(t, os.Chown(run, uid, gid))
	conf := c.path("rootless.conf")
	mustDo(t, os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n"), 0o644))
	try := func(t *testing.T, args ...string) (string, error) {
		t.Helper()
		return tryCommand(t, nil, "setpriv", append([]string{"--reuid", u.Uid, "--regid", u.Gid, "--init-groups", "env", "-C", "/",
			"XDG_RUNTIME_DIR=" + run, "HOME=" + u.HomeDir, "CONTAINERS_CONF=" + conf, "podman"}, args...)...)
	}
	call := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := try(t, args...)
		if err != nil {
			t.Fatalf("podman %s as %s: %v\n%s", strings.Join(args, " "), name, err, out)
		}
		out = strings.TrimSpace(out)
		return out[strings.LastIndexByte(out, '\n')+1:] // it warns, before it answers
	}
	t.Cleanup(func() {
		try(t, "rm", "-f", "-t", "0", "--all")
		within(t, "no process of "+name, func() bool { // podman leaves one that holds its namespaces
			dirs, _ := filepath.Glob("/proc/[0-9]*")
			for _, d := range dirs {
				if st, err := os.Stat(d); err == nil && st.Sys().(*syscall.Stat_t).Uid == uint32(uid) {
					pid, _ := strconv.Atoi(filepath.Base(d))
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			_, err := tryCommand(t, nil, "userdel", name)
			return err == nil
		})
		os.RemoveAll(u.HomeDir)
	})
	call(t, "load", "-q", "-i", c.tar)
	return &engine{
		name: "podman rootless",
		run: func(t *testing.T, b *box) {
			b.id = call(t, "run", "-d", "--name", b.name, "--network", "none", shopImage, "/entry", b.token, strconv.Itoa(b.port))
		},
		exec: func(t *testing.T, b *box, args ...string) { call(t, append([]string{"exec", b.name}, args...)...) },
		stop: func(t *testing.T, b *box) { call(t, "stop", "-t", "30", b.name); call(t, "rm", b.name) },
		want: map[string]string{"image": shopImage},
	}
}

// containerd starts containerd, and makes engines of ctr and of CRI.
func (c *containerBench) containerd() []*engine {
	t := c.t
	const socket = "/run/containerd/containerd.sock"
	noOther(t, socket)
	removeAfter(t, "/run/containerd", "/var/lib/containerd", "/opt/containerd")
	removeCgroups(t, "default", "kubepods")
	mustDo(t, os.WriteFile(c.path("containerd.toml"), []byte(fmt.Sprintf(`version = 2
root = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, c.path("containerd"), pauseImage, c.path("opt"))), 0o644))
	background(t, c.path("containerd.log"), "containerd", "--config", c.path("containerd.toml"))
	within(t, "containerd listens", func() bool { return listens(socket) })
	pause := c.path("pause.tar")
	makeImage(t, pause, pauseImage, c.rootfs, "/bin/sleep", "100000")
	for _, ns := range []string{"default", "k8s.io"} {
		command(t, nil, "ctr", "-n", ns, "image", "import", c.tar)
	}
	command(t, nil, "ctr", "-n", "k8s.io", "image", "import", pause)
	native := &engine{
		name:  "containerd",
		watch: "/run/containerd/io.containerd.runtime.v2.task/default/%/rootfs",
		run: func(t *testing.T, b *box) {
			b.id = b.name
			c.t.Cleanup(func() {
				tryCommand(t, nil, "ctr", "task", "rm", "-f", b.name)
				tryCommand(t, nil, "ctr", "container", "rm", b.name)
			})
			command(t, nil, "ctr", "run", "-d", "--label", "app=shop", shopImage, b.name, "/entry", b.token, strconv.Itoa(b.port))
		},
		exec: func(t *testing.T, b *box, args ...string) {
			command(t, nil, "ctr", append([]string{"task", "exec", "--exec-id", fmt.Sprintf("e%d", time.Now().UnixNano()), b.name}, args...)...)
		},
		stop: func(t *testing.T, b *box) {
			command(t, nil, "ctr", "task", "kill", "-s", "TERM", b.name)
			within(t, b.name+" stops", func() bool {
				return strings.Contains(command(t, nil, "ctr", "task", "ls"), "STOPPED")
			})
			command(t, nil, "ctr", "task", "rm", b.name)
			command(t, nil, "ctr", "container", "rm", b.name)
		},
		want: map[string]string{"image": shopImage},
	}
	return []*engine{native, c.cri(socket)}
}
