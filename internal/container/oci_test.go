package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

// recorded returns what a runtime wrote on a real machine.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSpecFacts(t *testing.T) {
	for _, tt := range []struct {
		file string
		want Facts
	}{
		{"cri-oci-config.json", Facts{
			Runtime: Containerd, Name: "web", Image: "docker.io/acme/shop:1.0", PodName: "ct-web-0", PodNamespace: "shop",
			PodUID: "5503829a-33f0-4c68-8679-adde0977285e", RootPath: "/bundle/rootfs", Confinement: event.Confinement{Privileged: event.No}}},
		{"podman-oci-config.json", Facts{
			Runtime:     Podman,
			RootPath:    "/var/lib/containers/storage/overlay/b1b4d5226a0af84806e80c23f03bd93f3c23c1d259dfda5ce3098d44ece7c574/merged",
			Confinement: event.Confinement{Privileged: event.No}}},
		{"docker-oci-config.json", Facts{
			RootPath:    "/var/lib/docker/overlay2/7f3e1cb1bf9e2fa3463985e64eb6e3bcdaaf73c5fd7eeb665c9f16c994b24b36/merged",
			Confinement: event.Confinement{Privileged: event.No}}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			got, _, err := specFacts(recorded(t, tt.file), "/bundle")
			if err != nil {
				t.Fatal(err)
			}
			if got.Labels != "" && !json.Valid([]byte(got.Labels)) {
				t.Errorf("labels %q are no JSON", got.Labels)
			}
			got.Labels = ""
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestConfinement(t *testing.T) {
	const own = `{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}`
	for _, tt := range []struct {
		name, spec string
		want       event.Confinement
	}{
		{"all of its own", `{"linux":{"namespaces":[` + own + `],"maskedPaths":["/proc/kcore"],"seccomp":{}}}`,
			event.Confinement{Privileged: event.No}},
		{"the host's", `{"linux":{"namespaces":[{"type":"mount"},{"type":"ipc"}]}}`,
			event.Confinement{Privileged: event.No, HostNamespaces: "network,pid,uts"}},
		{"the host's, by path", `{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"},{"type":"network","path":"/proc/77/ns/net"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]}}`,
			event.Confinement{Privileged: event.No, HostNamespaces: "pid"}},
		{"privileged", `{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_CHOWN","CAP_SYS_ADMIN","cap_bpf"]}},"linux":{"namespaces":[` + own + `],"seccomp":null}}`,
			event.Confinement{Privileged: event.Yes, Capabilities: "BPF,SYS_ADMIN"}},
		{"SYS_ADMIN, but filtered", `{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]}},"linux":{"namespaces":[` + own + `],"seccomp":{"a":1}}}`,
			event.Confinement{Privileged: event.No, Capabilities: "SYS_ADMIN"}},
		{"SYS_ADMIN, but masked", `{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]}},"linux":{"namespaces":[` + own + `],"maskedPaths":["/x"]}}`,
			event.Confinement{Privileged: event.No, Capabilities: "SYS_ADMIN"}},
		{"socket", `{"mounts":[{"source":"tmpfs"},{"source":"/var/run/docker.sock"}],"linux":{"namespaces":[` + own + `]}}`,
			event.Confinement{Privileged: event.No, RuntimeSocket: "/var/run/docker.sock"}},
		{"directory of sockets", `{"mounts":[{"source":"/var/../run//"}],"linux":{"namespaces":[` + own + `]}}`,
			event.Confinement{Privileged: event.No, RuntimeSocket: "/var/../run//"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := specFacts([]byte(tt.spec), "/")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Confinement); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestState(t *testing.T) {
	s, err := runcState(recorded(t, "runc-state.json"))
	if err != nil || s.ID != "ct-runc" || s.PID != 12830 || s.Start != 611171 || s.Bundle != "/opt/ct/ct-runc" ||
		s.Cgroups[""] != "/sys/fs/cgroup/unified/ct-runc" || s.Cgroups["devices"] != "/sys/fs/cgroup/devices/ct-runc" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = crunState(recorded(t, "crun-status.json"))
	if err != nil || s.PID != 12976 || s.Start != 611299 || s.Bundle != "/opt/ct/ct-crun" || s.Cgroups["*"] != "/ct-crun" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, parse := range []func([]byte) (*state, error){runcState, crunState} {
		for _, bad := range []string{"", "[]", `{"pid":"x","init_process_pid":"x"}`, "{"} {
			if s, err := parse([]byte(bad)); err == nil {
				t.Errorf("%q: %+v", bad, s)
			}
		}
	}
}

func TestStored(t *testing.T) {
	b := recorded(t, "podman-storage-containers.json")
	const id = "f1d5551bb126401a4b0d77e5eaafda457a7bff09d0ce0fad8af563c3569138d4"
	got, err := storedFacts(b, id)
	if err != nil {
		t.Fatal(err)
	}
	want := &Facts{Name: "ct-inpod", Image: "docker.io/acme/shop:1.0", ImageID: "sha256:e365e2e2e21986271029b21594a5c99eab49efc1986f2b62007767e74aec13c3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := storedFacts(b, id1); !errors.Is(err, errNotStored) {
		t.Errorf("a container that is not there: %v", err)
	}
	for _, bad := range []string{"", "{}", "null", "[1]", "[{}"} {
		if f, err := storedFacts([]byte(bad), id); err == nil {
			t.Errorf("%q: %+v", bad, f)
		}
	}
}

func TestLabels(t *testing.T) {
	if got := labels(map[string]string{"b": "2\n\"", "a": "\x00\xff"}, nil); got != `{"a":"\u0000\\xff","b":"2\n\""}` {
		t.Errorf("%s", got)
	}
	if got := labels(nil, nil); got != "" {
		t.Errorf("none: %s", got)
	}
	many := map[string]string{}
	for i := range 1000 {
		many[strings.Repeat("k", i+1)] = strings.Repeat("v", 200)
	}
	got := labels(many, nil)
	if len(got) > maxLabels+1 || !json.Valid([]byte(got)) {
		t.Errorf("%d bytes, valid: %v", len(got), json.Valid([]byte(got)))
	}
	if got := labels(map[string]string{"a": strings.Repeat("x", maxLabels)}, nil); got != "" {
		t.Errorf("a label too long for all: %d bytes", len(got))
	}
}

func TestMonitor(t *testing.T) {
	for _, tt := range []struct {
		args string
		want monitored
	}{
		{"/usr/bin/conmon --api-version 1 -c " + id1 + " -u " + id1 + " -r /usr/bin/crun -b /home/u/" + id1 + "/userdata -n web",
			monitored{id: id1, name: "web", runtime: Podman, bundle: "/home/u/" + id1 + "/userdata"}},
		{"/usr/bin/containerd-shim-runc-v2 -namespace moby -id " + id1 + " -address x", monitored{id: id1, runtime: Docker}},
		{"systemd-nspawn --quiet -D /srv/deb --machine=deb-12", monitored{id: "deb-12", name: "deb-12", runtime: Nspawn}},
		{"systemd-nspawn -D /srv/deb", monitored{id: "deb", name: "deb", runtime: Nspawn}},
	} {
		var args [][]byte
		for _, a := range strings.Fields(tt.args) {
			args = append(args, []byte(a))
		}
		got, ok := parseMonitor(args)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(monitored{})); diff != "" || !ok {
			t.Errorf("%s (%v): %s", tt.args, ok, diff)
		}
	}
	if got, _ := parseMonitor([][]byte{[]byte("[lxc monitor] /var/lib/lxc web")}); got.id != "web" || got.runtime != LXC {
		t.Errorf("LXC: %+v", got)
	}
	for _, bad := range []string{"", "conmon", "conmon -c", "bash -c x", "conmon -c ../../etc", "[lxc monitor] "} {
		if got, ok := parseMonitor([][]byte{[]byte(bad)}); ok {
			t.Errorf("%q: %+v", bad, got)
		}
		var args [][]byte
		for _, a := range strings.Fields(bad) {
			args = append(args, []byte(a))
		}
		if got, ok := parseMonitor(args); ok {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// Whatever a runtime, or somebody who passes for one, writes down: no panic, and nothing
// longer than it may be.
func FuzzAnswers(f *testing.F) {
	for _, name := range []string{"cri-oci-config.json", "runc-state.json", "crun-status.json", "podman-storage-containers.json",
		"docker-inspect.json", "docker-containers.json", "containerd-ctr-info.json"} {
		f.Add(recorded(f, name))
	}
	f.Add(appendText(appendText(nil, 1, "id"), 8, "\x0a\x01a\x12\x01b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []*Facts
		if x, _, err := specFacts(b, "/b"); err == nil {
			all = append(all, x)
		}
		_, _ = runcState(b)
		_, _ = crunState(b)
		_ = eachStored(b, func(c *stored) { all = append(all, c.facts()) })
		var d DockerDetails
		if json.Unmarshal(b, &d) == nil {
			all = append(all, d.facts(Docker))
		}
		var list []DockerContainer
		if json.Unmarshal(b, &list) == nil {
			for i := range list {
				all = append(all, list[i].facts(Docker))
			}
		}
		var e dockerEvent
		if json.Unmarshal(b, &e) == nil {
			all = append(all, e.facts(Docker))
		}
		for _, numbers := range []criFields{containerFields, statusFields, sandboxFields, sandboxStatusFields} {
			if x, err := parseCRI(b, numbers); err == nil {
				x.info = b
				all = append(all, x.facts(Containerd))
			}
		}
		for _, f := range all {
			if f.Labels != "" && !json.Valid([]byte(f.Labels)) {
				t.Errorf("labels %q", f.Labels)
			}
			if f.size() > 256+maxLabels+16*maxName {
				t.Errorf("%d bytes of facts", f.size())
			}
		}
	})
}
