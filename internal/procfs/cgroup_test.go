package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	const text = "12:cpu,cpuacct:/\n1:name=systemd:/user.slice:x\n0::/user.slice/a\nx\n7:pids\nnonsense:a:/\n5:devices:\n8::b\n"
	want := []Hierarchy{{ID: 0}, {ID: 1, Controllers: []string{"name=systemd"}}, {ID: 12, Controllers: []string{"cpu", "cpuacct"}}}
	if diff := cmp.Diff(want, parseHierarchies([]byte(text))); diff != "" {
		t.Error(diff)
	}
	var got []string
	EachCgroup([]byte(text), func(l CgroupLine) {
		got = append(got, fmt.Sprintf("%d %s %s", l.Hierarchy, l.Controllers, l.Path))
	})
	if diff := cmp.Diff([]string{"12 cpu,cpuacct /", "1 name=systemd /user.slice:x", "0  /user.slice/a"}, got); diff != "" {
		t.Error(diff)
	}
}

// Each way this distribution or that mounts them.
func TestHierarchies(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup, mounts string
		want                 []Hierarchy
		controller           string
	}{
		{"v2", "0::/init.scope\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", []Hierarchy{{ID: 0, Mount: "/sys/fs/cgroup"}}, ""},
		{"hybrid", "5:pids:/\n3:cpu,cpuacct:/\n2:devices:/\n1:name=systemd:/\n0::/\n",
			"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n" +
				"cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n",
			[]Hierarchy{{ID: 0, Mount: "/sys/fs/cgroup/unified"}, {ID: 1, Controllers: []string{"name=systemd"}, Mount: "/sys/fs/cgroup/systemd"},
				{ID: 2, Controllers: []string{"devices"}}, {ID: 3, Controllers: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct"},
				{ID: 5, Controllers: []string{"pids"}, Mount: "/sys/fs/cgroup/pids"}}, "pids"},
		{"v1", "4:memory:/\n2:devices:/\n", "cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0\n",
			[]Hierarchy{{ID: 2, Controllers: []string{"devices"}, Mount: "/sys/fs/cgroup/devices"}, {ID: 4, Controllers: []string{"memory"}}}, "devices"},
		{"none", "", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "proc/1/cgroup"), tt.cgroup)
			write(t, filepath.Join(dir, "proc/1/mounts"), tt.mounts)
			got, err := At(dir).Hierarchies()
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.want {
				if m := &tt.want[i].Mount; *m != "" {
					*m = dir + *m // as the agent below a host root sees it
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if _, name := At(dir).ContainerHierarchy(); name != tt.controller {
				t.Errorf("controller %q, want %q", name, tt.controller)
			}
		})
	}
}

func FuzzCgroup(f *testing.F) {
	f.Add([]byte("0::/a\n12:cpu,cpuacct:/b:c\n"))
	f.Add([]byte("99999999999999999999::/\n-1::/\n:::/"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, h := range parseHierarchies(b) {
			if h.ID < 0 {
				t.Errorf("hierarchy %d", h.ID)
			}
		}
		EachCgroup(b, func(l CgroupLine) {
			if len(l.Path) == 0 || l.Path[0] != '/' {
				t.Errorf("path %q", l.Path)
			}
		})
	})
}

// Paths and numbers lead to each other as long as the cgroup is there, and to nothing after.
func TestCgroupTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	all, err := At("").Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, h := range all {
		if h.Mount == "" {
			continue
		}
		tried++
		t.Run(h.Mount, func(t *testing.T) {
			tree, err := OpenCgroups(h)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if tree.handle == 0 {
				t.Error("no file handles: every look-up walks the tree")
			}
			outer := fmt.Sprintf("/goshawk test\xff(deleted) %d", os.Getpid())
			path := outer + "/inner (deleted)x"
			if err := os.MkdirAll(h.Mount+path, 0o755); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(h.Mount + outer)
			defer os.Remove(h.Mount + path)
			id, err := tree.ID(path)
			if err != nil {
				t.Fatal(err)
			}
			if up, err := tree.ID("/../.." + path); err != nil || up != id {
				t.Errorf("from above the root: %d, %v", up, err)
			}
			handle := tree.handle
			for _, way := range []string{"handle", "walk"} {
				if way == "walk" {
					tree.handle = 0
				}
				if got, err := tree.Path(id); err != nil || got != path {
					t.Errorf("%s: %q, %v, want %q", way, got, err, path)
				}
				if again, err := tree.ID(path); err != nil || again != id {
					t.Errorf("%s: %d, %v, want %d", way, again, err, id)
				}
			}
			tree.handle = handle
			seen := map[string]uint64{}
			if err := tree.Walk(func(id uint64, path string) error { seen[path] = id; return nil }); err != nil {
				t.Fatal(err)
			}
			if seen[path] != id || seen[outer] == 0 || seen["/"] == 0 {
				t.Errorf("the walk found %v", seen)
			}
			root, err := tree.Path(seen["/"])
			if err != nil || root != "/" {
				t.Errorf("root: %q, %v", root, err)
			}
			if err := os.Remove(h.Mount + path); err != nil {
				t.Fatal(err)
			}
			for _, way := range []string{"handle", "walk"} {
				if way == "walk" {
					tree.handle = 0
				}
				if got, err := tree.Path(id); !errors.Is(err, ErrGone) {
					t.Errorf("%s: removed, and yet %q, %v", way, got, err)
				}
				if got, err := tree.ID(path); !errors.Is(err, ErrGone) {
					t.Errorf("%s: removed, and yet %d, %v", way, got, err)
				}
			}
		})
	}
	if tried == 0 {
		t.Skip("no cgroup hierarchy is mounted here")
	}
}
