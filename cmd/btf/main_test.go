package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// kernel makes the types of a kernel whose task_struct has so many bytes.
func kernel(t *testing.T, size uint32) []byte {
	t.Helper()
	pid := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	task := &btf.Struct{Name: "task_struct", Size: size, Members: []btf.Member{
		{Name: "none_of_ours", Type: pid}, {Name: "pid", Type: pid, Offset: btf.Bits(size-4) * 8}}}
	b, err := btf.NewBuilder([]btf.Type{task, &btf.Struct{Name: "none_of_ours", Size: 8}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hubs packs a file as BTFHub does.
func hubs(t *testing.T, name string, types []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(types)), Typeflag: tar.TypeReg})
	_, err2 := w.Write(types)
	if err := errors.Join(err, err2, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPack(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "btf.tar.gz")
	put := func(name string, b []byte) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	old := "3.10.0-1160.el7.x86_64.btf"
	put("centos/7/x86_64/"+old+".tar.xz", hubs(t, old, kernel(t, 4000)))
	put("rhel/7/x86_64/"+old+".tar.xz", hubs(t, old, kernel(t, 4000))) // the same once more
	put("ol/7/x86_64/"+old+".tar.xz", hubs(t, old, kernel(t, 4400)))   // another by the same name
	put("ubuntu/18.04/arm64/4.15.0-20-generic.btf.tar.xz", hubs(t, "4.15.0-20-generic.btf", kernel(t, 5000)))
	put("ubuntu/18.04/x86_64/4.15.0-20-generic.btf.tar.xz", hubs(t, "./4.15.0-20-generic.btf", kernel(t, 6000)))
	put("amzn/2/s390x/4.14.btf", kernel(t, 8000))
	put("4.14.1.btf", kernel(t, 7000))
	put("x86_64/bad.btf.tar.xz", []byte("no archive"))
	put("x86_64/empty.btf.tar.xz", hubs(t, "README", nil))
	put("x86_64/short.btf", kernel(t, 4000)[:50])
	put("README.md", []byte("words"))

	pack := func(match, machine string) (map[string]uint32, string) {
		t.Helper()
		var log strings.Builder
		p := packer{match: match, machine: machine, files: map[string]packed{}, log: &log}
		if err := p.run(dir, out); err != nil {
			return nil, err.Error()
		}
		return unpack(t, out), log.String()
	}
	got, log := pack("*", "")
	want := map[string]uint32{"x86_64/" + old: 4000, "aarch64/4.15.0-20-generic.btf": 5000, "x86_64/4.15.0-20-generic.btf": 6000, "x86_64/4.14.1.btf": 7000}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("packed (-want +got):\n%s", d)
	}
	for _, left := range []string{"bad.btf.tar.xz: ", "empty.btf.tar.xz: it has no .btf", "short.btf: ", "differs, and is called the same", "4 kernels from ", "4 files were left out"} {
		if !strings.Contains(log, left) {
			t.Errorf("no %q in:\n%s", left, log)
		}
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	pack("*", "")
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(first, again) {
		t.Errorf("packed once more it differs: %v", err)
	}
	got, _ = pack("4.15*", "aarch64")
	if d := cmp.Diff(map[string]uint32{"aarch64/4.15.0-20-generic.btf": 5000}, got); d != "" {
		t.Errorf("some (-want +got):\n%s", d)
	}
	if _, why := pack("none*", ""); !strings.Contains(why, "no types of a kernel below") {
		t.Errorf("none: %s", why)
	}
}

// unpack returns how large task_struct is in each file, and that nothing else is there.
func unpack(t *testing.T, name string) map[string]uint32 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]uint32{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := btf.LoadSpecFromReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		var task *btf.Struct
		if err := spec.TypeByName("task_struct", &task); err != nil {
			t.Fatal(err)
		}
		if len(task.Members) != 1 || task.Members[0].Name != "pid" {
			t.Errorf("%s: %v", h.Name, task.Members)
		}
		if _, err := spec.AnyTypeByName("none_of_ours"); err == nil {
			t.Errorf("%s: none_of_ours is still there", h.Name)
		}
		sizes[h.Name] = task.Size
	}
}
