package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	id1 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	id2 = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	id3 = "5555555555555555555555555555555555555555555555555555555555555555"
	uid = "8a4f6c3e-0d57-4d0b-9a52-0f6f2c7b1e11"
)

// low is a pod's uid as a slice's name has it.
var low = strings.ReplaceAll(uid, "-", "_")

func TestParsePath(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		want       Ref // Root "" is the whole path
	}{
		{"docker, cgroupfs", "/docker/" + id1, Ref{ID: id1, Runtime: Docker}},
		{"docker, systemd", "/system.slice/docker-" + id1 + ".scope", Ref{ID: id1, Runtime: Docker}},
		{"docker, own parent", "/actions_job/" + id1, Ref{ID: id1}},
		{"docker, systemd inside", "/docker/" + id1 + "/system.slice/nginx.service", Ref{ID: id1, Runtime: Docker, Root: "/docker/" + id1}},
		{"docker, no parent at all", "/" + id1, Ref{ID: id1}},
		{"rootless docker", "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-" + id1 + ".scope", Ref{ID: id1, Runtime: Docker}},
		{"docker in docker", "/docker/" + id1 + "/docker/" + id2, Ref{ID: id2, Runtime: Docker}},
		{"BuildKit", "/docker/buildkit/kx7x3v3p7cdz1qv1wx7m9m7o2", Ref{ID: "kx7x3v3p7cdz1qv1wx7m9m7o2", Runtime: BuildKit}},
		{"podman, cgroupfs", "/libpod_parent/libpod-" + id1, Ref{ID: id1, Runtime: Podman}},
		{"podman pod, cgroupfs", "/libpod_parent/" + id2 + "/libpod-" + id1, Ref{ID: id1, Runtime: Podman}},
		{"podman, systemd", "/machine.slice/libpod-" + id1 + ".scope", Ref{ID: id1, Runtime: Podman}},
		{"podman, crun's group", "/machine.slice/libpod-" + id1 + ".scope/container", Ref{ID: id1, Runtime: Podman, Root: "/machine.slice/libpod-" + id1 + ".scope"}},
		{"podman pod, systemd", "/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope/container",
			Ref{ID: id1, Runtime: Podman, Root: "/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope"}},
		{"rootless podman, systemd", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope/container",
			Ref{ID: id1, Runtime: Podman, Root: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope"}},
		{"podman in a service", "/system.slice/web.service/libpod-payload-" + id1, Ref{ID: id1, Runtime: Podman}},
		{"nerdctl", "/system.slice/nerdctl-" + id1 + ".scope", Ref{ID: id1, Runtime: Containerd}},
		{"ctr, long id", "/default/" + id1, Ref{ID: id1}},
		{"runc, systemd", "/system.slice/runc-web_1.scope", Ref{ID: "web_1", Runtime: Runc}},
		{"crun, systemd", "/user.slice/user-0.slice/crun-a.b+c.scope/container", Ref{ID: "a.b+c", Runtime: Crun, Root: "/user.slice/user-0.slice/crun-a.b+c.scope"}},

		{"kubelet, containerd, cgroupfs, burstable", "/kubepods/burstable/pod" + uid + "/" + id1, Ref{ID: id1, PodUID: uid}},
		{"kubelet, containerd, cgroupfs, guaranteed", "/kubepods/pod" + uid + "/" + id1, Ref{ID: id1, PodUID: uid}},
		{"kubelet, static pod", "/kubepods/besteffort/poda4fd5b2f7b2fd4ff7e0d3b3d3d8c0a11/" + id1, Ref{ID: id1, PodUID: "a4fd5b2f7b2fd4ff7e0d3b3d3d8c0a11"}},
		{"kubelet, containerd, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + low + ".slice/cri-containerd-" + id1 + ".scope",
			Ref{ID: id1, Runtime: Containerd, PodUID: uid}},
		{"kubelet, containerd, systemd, guaranteed", "/kubepods.slice/kubepods-pod" + low + ".slice/cri-containerd-" + id1 + ".scope",
			Ref{ID: id1, Runtime: Containerd, PodUID: uid}},
		{"kubelet, slice taken as it is", "/kubepods-besteffort-pod" + low + ".slice:cri-containerd:" + id1,
			Ref{ID: id1, Runtime: Containerd, PodUID: uid}},
		{"the same below containerd.service", "/system.slice/containerd.service/kubepods-besteffort-pod" + low + ".slice:cri-containerd:" + id1,
			Ref{ID: id1, Runtime: Containerd, PodUID: uid}},
		{"kubelet, docker, systemd", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + low + ".slice/docker-" + id1 + ".scope",
			Ref{ID: id1, Runtime: Docker, PodUID: uid}},
		{"CRI-O, cgroupfs", "/kubepods/burstable/pod" + uid + "/crio-" + id1, Ref{ID: id1, Runtime: CRIO, PodUID: uid}},
		{"CRI-O, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + low + ".slice/crio-" + id1 + ".scope/container",
			Ref{ID: id1, Runtime: CRIO, PodUID: uid, Root: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + low + ".slice/crio-" + id1 + ".scope"}},
		{"kind", "/docker/" + id2 + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + low + ".slice/cri-containerd-" + id1 + ".scope",
			Ref{ID: id1, Runtime: Containerd, PodUID: uid}},
		{"Kata", "/kubepods/pod" + uid + "/kata_" + id1, Ref{ID: id1, Runtime: Kata, PodUID: uid}},

		{"ECS", "/ecs/0123456789abcdef0123456789abcdef/" + id1, Ref{ID: id1}},
		{"ECS, older", "/ecs/task-arn/" + id1, Ref{ID: id1}},
		{"Fargate", "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
			Ref{ID: "0123456789abcdef0123456789abcdef-1234567890", Runtime: ECS}},
		{"Garden", "/garden/7e3ff1e5-7d24-4d9d-6b5c-33a2", Ref{ID: "7e3ff1e5-7d24-4d9d-6b5c-33a2", Runtime: Garden}},

		{"LXC", "/lxc.payload.web", Ref{ID: "web", Runtime: LXC}},
		{"LXC 2", "/lxc/web", Ref{ID: "web", Runtime: LXC}},
		{"LXC 3", "/lxc.payload/web", Ref{ID: "web", Runtime: LXC}},
		{"LXC in LXC", "/lxc/outer/lxc/inner", Ref{ID: "inner", Runtime: LXC}},
		{"lxc-attach", "/lxc.payload.web/.lxc", Ref{ID: "web", Runtime: LXC, Root: "/lxc.payload.web"}},
		{"systemd in LXC", "/lxc.payload.web/system.slice/ssh.service", Ref{ID: "web", Runtime: LXC, Root: "/lxc.payload.web"}},
		{"libvirt's LXC", `/machine.slice/machine-lxc\x2d7\x2dweb\x2d1.scope`, Ref{ID: "web-1", Runtime: LibvirtLXC}},
		{"nspawn, machined", `/machine.slice/machine-deb\x2d12.scope/payload`, Ref{ID: "deb-12", Runtime: Nspawn}},
		{"nspawn, machined, systemd inside", `/machine.slice/machine-deb.scope/payload/init.scope`,
			Ref{ID: "deb", Runtime: Nspawn, Root: "/machine.slice/machine-deb.scope/payload"}},
		{"nspawn, service", `/machine.slice/systemd-nspawn@web\x40home.service/payload/system.slice/a.service`,
			Ref{ID: "web@home", Runtime: Nspawn, Root: `/machine.slice/systemd-nspawn@web\x40home.service/payload`}},

		{"gone", "/docker/" + id1 + " (deleted)", Ref{ID: id1, Runtime: Docker, Root: "/docker/" + id1}},
		{"from another cgroup namespace", "/../../docker/" + id1, Ref{ID: id1, Runtime: Docker}},
		{"hostile names above", "/a\nb/\x1b[2J/../docker/" + id1, Ref{ID: id1, Runtime: Docker}},
		{"hostile name", "/lxc.payload.a\nb\xff", Ref{ID: "a\nb\xff", Runtime: LXC}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want.Root == "" {
				tt.want.Root = tt.path
			}
			got, ok := ParsePath(tt.path)
			if diff := cmp.Diff(tt.want, got); diff != "" || !ok {
				t.Errorf("%q (%v):\n%s", tt.path, ok, diff)
			}
		})
	}
	for _, path := range []string{
		"", "/", "//", "/..", "/init.scope", "/user.slice/user-1000.slice/session-3.scope", "/system.slice/docker.service",
		"/system.slice/containerd.service", "/kubepods/burstable/pod" + uid, "/kubepods.slice/kubepods-pod" + low + ".slice",
		"/libpod_parent/" + id1, "/libpod_parent/conmon", "/machine.slice/libpod-conmon-" + id1 + ".scope",
		"/kubepods/burstable/pod" + uid + "/crio-conmon-" + id1, "/lxc.monitor.web", "/lxc.pivot", "/lxc.payload.", "/lxc/",
		"/machine.slice/machine-deb.scope/supervisor", "/machine.slice/systemd-nspawn@web.service",
		"/machine.slice/systemd-nspawn@web.service/supervisor", `/machine.slice/machine-qemu\x2d1\x2dvm.scope`,
		"/docker/" + id1[:63], "/docker/" + strings.ToUpper(id1), "/docker/" + id1 + "0", "/x" + id1, "/evil-" + id1 + ".scope",
		"/docker-compose-web.scope", "/runc-.scope", "/ecs/abc/abc-1", "/docker/buildkit/short", "/system.slice/docker-" + id1 + ".mount",
		"/ct-runc", "/default/c1", "/payload",
	} {
		if got, ok := ParsePath(path); ok {
			t.Errorf("%q is said to be %+v", path, got)
		}
	}
}

func TestGuess(t *testing.T) {
	for path, want := range map[string]Ref{
		"/ct-runc":                      {ID: "ct-runc", Root: "/ct-runc"},
		"/default/c1":                   {ID: "c1", Root: "/default/c1"},
		"/ct-crun/container":            {ID: "ct-crun", Root: "/ct-crun"},
		"/a\nb":                         {ID: "a\nb", Root: "/a\nb"},
		"/NSJAIL.12":                    {ID: "NSJAIL.12", Root: "/NSJAIL.12"},
		"":                              {},
		"/":                             {},
		"/..":                           {},
		"/container":                    {},
		"/user.slice/app-chrome.scope":  {},
		"/system.slice/unshare.service": {},
		"/user.slice":                   {},
	} {
		got, ok := Guess(path)
		if diff := cmp.Diff(want, got); diff != "" || ok != (want.ID != "") {
			t.Errorf("%q (%v): %s", path, ok, diff)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/docker/" + id1, "/kubepods-besteffort-pod" + low + ".slice:cri-containerd:" + id1,
		`/machine.slice/machine-deb\x2d12.scope/payload`, "/lxc/a/lxc/b", "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1",
		"/a/container/init", "/docker/" + id1 + " (deleted)", "\\x", "/machine-\\x2.scope"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, parse := range []func(string) (Ref, bool){ParsePath, Guess} {
			r, ok := parse(path)
			if !ok {
				if r != (Ref{}) {
					t.Errorf("none, and yet %+v", r)
				}
				continue
			}
			if r.ID == "" || strings.Contains(r.ID, "/") && !strings.Contains(path, `\x2f`) {
				t.Errorf("id %q", r.ID)
			}
			if !strings.HasPrefix(path, r.Root) || r.Root == "" {
				t.Errorf("root %q", r.Root)
			}
			// What is below a container's cgroup belongs to it, unless it is one itself.
			if again, ok := parse(r.Root); !ok || again != r {
				t.Errorf("%+v, its root alone %+v", r, again)
			}
			if r.PodUID != "" && !strings.Contains(path, "pod") {
				t.Errorf("pod %q", r.PodUID)
			}
		}
	})
}

func BenchmarkParsePath(b *testing.B) {
	path := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + low + ".slice/cri-containerd-" + id1 + ".scope"
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ParsePath(path); !ok {
			b.Fatal("no container")
		}
	}
}
