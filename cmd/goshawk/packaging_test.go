package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

const packagingDir = "../../packaging/"

// daemonSet is what the tests read of the manifest.
type daemonSet struct {
	Kind string
	Spec struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				HostPID     bool `yaml:"hostPID"`
				HostNetwork bool `yaml:"hostNetwork"`
				Containers  []struct {
					Name            string
					Args            []string
					SecurityContext struct {
						Privileged             bool
						ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
						Capabilities           struct{ Add, Drop []string }
						SeccompProfile         struct{ Type string } `yaml:"seccompProfile"`
					} `yaml:"securityContext"`
					VolumeMounts []struct {
						Name             string
						MountPath        string `yaml:"mountPath"`
						ReadOnly         bool   `yaml:"readOnly"`
						MountPropagation string `yaml:"mountPropagation"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name     string
					HostPath struct{ Path string } `yaml:"hostPath"`
				}
			}
		}
	}
}

// manifest reads the DaemonSet in a file.
func manifest(t *testing.T, file string) *daemonSet {
	t.Helper()
	b, err := os.ReadFile(packagingDir + file)
	mustDo(t, err)
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		s := new(daemonSet)
		if err := d.Decode(s); err != nil {
			t.Fatalf("%s has no DaemonSet: %v", file, err)
		}
		if s.Kind == "DaemonSet" {
			return s
		}
	}
}

var capabilityNames = regexp.MustCompile(`^(ALL|BPF|PERFMON|NET_ADMIN|SYS_(ADMIN|PTRACE|RESOURCE|NICE)|DAC_READ_SEARCH)$`)

// TestManifests holds the manifests against what goshawk takes.
func TestManifests(t *testing.T) {
	s := manifest(t, "kubernetes/base/goshawk.yaml")
	pod := &s.Spec.Template.Spec
	if !pod.HostPID || len(pod.Containers) != 1 {
		t.Fatalf("hostPID %v, %d containers", pod.HostPID, len(pod.Containers))
	}
	for k, v := range s.Spec.Selector.MatchLabels {
		check(t, "label "+k, s.Spec.Template.Metadata.Labels[k], v)
	}
	c := &pod.Containers[0]
	if c.SecurityContext.Privileged || !c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("more than it needs: %+v", c.SecurityContext)
	}
	old := manifest(t, "kubernetes/old-kernels/capabilities.yaml").Spec.Template.Spec.Containers[0]
	check(t, "container that the patch names", old.Name, c.Name)
	for _, name := range slices.Concat(c.SecurityContext.Capabilities.Add, old.SecurityContext.Capabilities.Add) {
		if !capabilityNames.MatchString(name) {
			t.Errorf("capability %q", name)
		}
	}
	if slices.Contains(c.SecurityContext.Capabilities.Add, "SYS_ADMIN") || !slices.Contains(old.SecurityContext.Capabilities.Add, "SYS_ADMIN") {
		t.Error("SYS_ADMIN is for kernels before 5.8, and for those only")
	}
	var volumes []string
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
	}
	root := newRoot()
	cmd, rest, err := root.Find(c.Args)
	mustDo(t, err)
	mustDo(t, cmd.ParseFlags(rest))
	for flag, want := range map[string]string{"store": "/var/lib/goshawk", "run": "/run/goshawk", "host": cmd.Flag("host-root").Value.String()} {
		at := slices.Index(volumes, flag)
		if at < 0 || c.VolumeMounts[at].Name != flag || c.VolumeMounts[at].MountPath != want {
			t.Errorf("volume %s is not mounted at %s", flag, want)
		}
	}
	// The image's own command is the same.
	b, err := os.ReadFile(packagingDir + "container/Containerfile")
	mustDo(t, err)
	line := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindSubmatch(b)
	var words []string
	if line == nil {
		t.Fatalf("no CMD in:\n%s", b)
	}
	mustDo(t, yaml.Unmarshal(line[1], &words))
	check(t, "command of the image", words, c.Args)
}

// bounding are the capabilities that this process may pass on.
func bounding(t *testing.T) func(name string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	mustDo(t, err)
	m := regexp.MustCompile(`(?m)^CapBnd:\t([0-9a-f]+)$`).FindSubmatch(b)
	set, err := strconv.ParseUint(string(m[1]), 16, 64)
	mustDo(t, err)
	// linux/capability.h
	numbers := map[string]uint{"DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_NICE": 23, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}
	return func(name string) bool { return set>>numbers[name]&1 != 0 }
}

// TestLiveInContainer runs goshawk itself in a container, of the image and with the rights
// that packaging/ gives it, after another container was started: what happens there, in a
// third one and on the host is told as if it ran on the host.
func TestLiveInContainer(t *testing.T) {
	c := newBench(t)
	keepDelegation(t)
	// As systemd does on every host; without SYS_ADMIN nobody in the container can.
	if _, err := os.Stat("/sys/kernel/tracing/events"); err != nil {
		mustDo(t, syscall.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""))
		t.Cleanup(func() { syscall.Unmount("/sys/kernel/tracing", syscall.MNT_DETACH) })
	}
	engine := c.oci("runc", "runc")
	call := c.podmanOnly()
	mustDo(t, os.Mkdir(c.path("bin"), 0o755))
	own, err := exec.LookPath("goshawk") // this test, which is goshawk under that name
	mustDo(t, err)
	if f, err := elf.Open(own); err == nil && !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		mustDo(t, f.Close())
		b, err := os.ReadFile(own)
		mustDo(t, err)
		mustDo(t, os.WriteFile(c.path("bin/goshawk"), b, 0o755))
	} else { // not static
		command(t, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", c.path("bin/goshawk"), ".")
	}
	const image = "localhost/goshawk:test"
	call(t, "build", "-q", "-t", image, "-f", packagingDir+"container/Containerfile", c.dir)
	t.Cleanup(func() {
		tryCommand(t, []string{"CONTAINERS_CONF=" + c.path("containers.conf")}, "podman", "rmi", "-f", image)
	})

	before := &box{engine: "runc", name: "goshawk-early", token: "early", port: 41101}
	engine.run(t, before)

	s := manifest(t, "kubernetes/base/goshawk.yaml")
	pod := &s.Spec.Template.Spec
	security := &pod.Containers[0].SecurityContext
	args := []string{"run", "--rm", "--name", "goshawk-agent", "--pid", "host", "--network", "host", "--cap-drop", "all",
		"--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges"}
	if security.SeccompProfile.Type == "Unconfined" {
		args = append(args, "--security-opt", "seccomp=unconfined")
	}
	may := bounding(t)
	for _, name := range security.Capabilities.Add {
		if may(name) {
			args = append(args, "--cap-add", name)
		} else if name != "SYS_RESOURCE" {
			t.Fatalf("this machine does not grant CAP_%s", name)
		}
	}
	for _, v := range pod.Containers[0].VolumeMounts {
		source := c.path("volume-" + v.Name)
		for _, w := range pod.Volumes {
			if w.Name == v.Name && w.HostPath.Path == "/" {
				source = "/"
			}
		}
		if source != "/" {
			mustDo(t, os.Mkdir(source, 0o700))
		}
		mode := ""
		if v.ReadOnly {
			mode = ":ro,rslave"
		}
		args = append(args, "-v", source+":"+v.MountPath+mode)
	}
	args = append(append(args, image), pod.Containers[0].Args...)
	printed, said := c.path("printed"), c.path("said")
	background(t, said, "sh", append([]string{"-c", `out=$1; shift; exec "$@" >"$out"`, "sh", printed, "env", "CONTAINERS_CONF=" + c.path("containers.conf"), "podman"}, args...)...)
	t.Cleanup(func() {
		tryCommand(t, []string{"CONTAINERS_CONF=" + c.path("containers.conf")}, "podman", "rm", "-f", "-t", "10", "goshawk-agent")
	})
	within(t, "goshawk in its container is ready", func() bool {
		b, _ := os.ReadFile(said)
		return bytes.Contains(b, []byte("ready: source=ebpf"))
	}, func() string { b, _ := os.ReadFile(said); return string(b) })

	after := &box{engine: "runc", name: "goshawk-late", token: "late", port: 41102}
	engine.run(t, after)
	boxes := []*box{before, after}
	for _, b := range boxes {
		engine.exec(t, b, "/work", b.token, strconv.Itoa(b.port))
		b.pid = b.first(t)
	}
	command(t, nil, "/bin/true", "on-the-host")

	stream := openStream(t, printed)
	missing := ""
	within(t, "all is told", func() bool {
		records := stream.read()
		missing = ""
		for _, b := range boxes {
			if m := b.missing(records, engine); m != "" {
				missing += b.token + ": " + m + "\n"
			}
		}
		if !slices.ContainsFunc(records, func(r record) bool {
			return r.text("kind") == "exec" && slices.Contains(r.args(), "on-the-host") && r.text("container_id") == "" && r.text("ppid") == strconv.Itoa(os.Getpid())
		}) {
			missing += "a program on the host\n"
		}
		return missing == ""
	}, func() string { return missing })

	ask := func(sql string) string {
		return call(t, "exec", "goshawk-agent", "/goshawk", "query", "--host-root", "/host", "--format", "csv", sql)
	}
	check(t, "a process of the host", ask(fmt.Sprintf("SELECT pid, parent FROM processes WHERE pid = %d", os.Getpid())),
		fmt.Sprintf("pid,parent\n%d,%d", os.Getpid(), os.Getppid()))
	check(t, "a file in a container", ask(fmt.Sprintf("SELECT sha256 FROM hash WHERE path = '/work' AND pid_with_namespace = %d", before.pid)),
		"sha256\n"+sha256Of(workScript))
	var st syscall.Stat_t
	mustDo(t, syscall.Stat("/etc/passwd", &st))
	check(t, "a file of the host", ask("SELECT inode FROM file WHERE path = '/etc/passwd'"), fmt.Sprintf("inode\n%d", st.Ino))
	check(t, "hooks not attached", ask("SELECT count(*) AS n FROM goshawk_hooks WHERE tier IN ('', 'none')"), "n\n0")
	checkFromContainer(t, call)
	daemonInContainer(t, c, call, before)

	for _, b := range boxes {
		engine.stop(t, b)
	}
	checkAttribution(t, boxes, stream.read())
}

// checkFromContainer asks in goshawk's container what goshawk check finds: the host's kernel,
// distribution and mounts.
func checkFromContainer(t *testing.T, call func(t *testing.T, args ...string) string) {
	t.Helper()
	var r report
	mustDo(t, json.Unmarshal([]byte(call(t, "exec", "goshawk-agent", "/goshawk", "check", "--host-root", "/host", "--format", "json")), &r))
	facts := map[string]string{}
	for _, f := range r.Kernel {
		facts[f.Name] = f.Value
	}
	for _, f := range kernel.Probe(procfs.At(""), "", "") {
		if f.Name == "distribution" || f.Name == "release" {
			check(t, f.Name, facts[f.Name], f.Value)
		}
	}
	if !strings.Contains(facts["cgroups"], "/sys/fs/cgroup") {
		t.Errorf("cgroups: %s", facts["cgroups"])
	}
	check(t, "source", r.Source, "ebpf")
}

// daemonInContainer runs goshawk daemon beside the agent in its container, with a schedule
// about the host and about a container on it.
func daemonInContainer(t *testing.T, c *containerBench, call func(t *testing.T, args ...string) string, b *box) {
	t.Helper()
	mustDo(t, os.WriteFile(c.path("volume-store/daemon.conf"), []byte(`{"schedule":{
		"parent":{"query":"SELECT parent FROM processes WHERE pid = `+strconv.Itoa(os.Getpid())+`","interval":1,"snapshot":true},
		"inside":{"query":"SELECT container_name, path FROM process_events WHERE container_id = '`+b.id+`' AND container_name <> ''","interval":1}}}`), 0o600))
	printed := c.path("daemon-printed")
	background(t, c.path("daemon-said"), "sh", "-c", `out=$1; shift; exec "$@" >"$out"`, "sh", printed, "env", "CONTAINERS_CONF="+c.path("containers.conf"),
		"podman", "exec", "goshawk-agent", "/goshawk", "daemon", "--host_root=/host", "--config_path=/var/lib/goshawk/daemon.conf", "--database_path=/var/lib/goshawk/daemon",
		"--socket=/run/goshawk/daemon.sock", "--pidfile=/run/goshawk/daemon.pid", "--extensions_socket=/run/goshawk/daemon.em", "--logger_plugin=stdout", "--schedule_splay_percent=0")
	within(t, "the daemon in the container tells of the host, and of containers on it", func() bool {
		b, _ := os.ReadFile(printed)
		return bytes.Contains(b, []byte(`"parent":"`+strconv.Itoa(os.Getppid())+`"`)) && bytes.Contains(b, []byte(`"container_name":"goshawk-early","path":"/bin/busybox"`))
	}, func() string {
		b, _ := os.ReadFile(printed)
		more, _ := os.ReadFile(c.path("daemon-said"))
		return string(b) + string(more)
	})
}

// podmanOnly is podman without its API.
func (c *containerBench) podmanOnly() func(t *testing.T, args ...string) string {
	removeAfter(c.t, "/run/libpod", "/run/containers", "/var/lib/containers/storage", "/var/lib/containers/cache")
	removeCgroups(c.t, "libpod_parent")
	return c.podmanCall()
}
