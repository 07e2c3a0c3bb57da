package sensor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// kernelBTF is the file with the types of this kernel.
func kernelBTF(t testing.TB) string {
	t.Helper()
	name, _, err := procfs.At("").BTF()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this kernel carries no BTF")
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// reduced is what ReduceTypes keeps.
func reduced(t testing.TB, all *btf.Spec) (*btf.Spec, int) {
	t.Helper()
	b, err := reduceTypes(all)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return spec, len(b)
}

// sameRelocation compares the programs of an object as they are for two kernels.
func sameRelocation(t *testing.T, spec *ebpf.CollectionSpec, want, got *btf.Spec) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		text := func(types *btf.Spec) []string {
			var out []string
			for _, ins := range relocate(t, p, types) {
				out = append(out, fmt.Sprint(asm.Instruction{OpCode: ins.OpCode, Dst: ins.Dst, Src: ins.Src, Offset: ins.Offset, Constant: ins.Constant}))
			}
			return out
		}
		if d := cmp.Diff(text(want), text(got)); d != "" {
			t.Errorf("%s (-all types +reduced):\n%s", name, d)
		}
	}
}

// By the reduced types of this kernel every program is what it is by all of them.
func TestReduceTypes(t *testing.T) {
	all, err := btf.LoadSpec(kernelBTF(t))
	if err != nil {
		t.Fatal(err)
	}
	few, size := reduced(t, all)
	if size > 64<<10 {
		t.Errorf("%d bytes are left", size)
	}
	t.Logf("%d bytes are left", size)
	for _, o := range objects {
		spec, err := o.spec()
		if err != nil {
			t.Fatal(err)
		}
		sameRelocation(t, spec, all, few)
	}
	if _, n := reduced(t, few); n != size {
		t.Errorf("reduced once more: %d bytes, were %d", n, size)
	}
}

// The same for kernels that cannot be had here, with types that are there once for each of
// three source files.
func TestReduceTypesOfOldKernels(t *testing.T) {
	spec, err := objects[1].spec()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range oldKernels {
		t.Run(k.name, func(t *testing.T) {
			types, err := newKernelTypes(spec.Types, k.lacks, k.flavours)
			if err != nil {
				t.Fatal(err)
			}
			var thrice []btf.Type
			for range 3 {
				for typ, err := range types.All() {
					if err != nil {
						t.Fatal(err)
					}
					thrice = append(thrice, btf.Copy(typ))
				}
			}
			b, err := btf.NewBuilder(thrice, nil)
			if err != nil {
				t.Fatal(err)
			}
			all, err := b.Spec()
			if err != nil {
				t.Fatal(err)
			}
			few, _ := reduced(t, all)
			if tasks, err := few.AnyTypesByName("task_struct"); err != nil || len(tasks) != 1 {
				t.Errorf("%d times task_struct: %v", len(tasks), err)
			}
			sameRelocation(t, spec, types, few)
		})
	}
}

// archive packs files as `make btf` does.
func archive(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLoadTypes(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	own := unix.ByteSliceToString(u.Machine[:]) + "/" + unix.ByteSliceToString(u.Release[:]) + ".btf"
	spec, err := objects[1].spec()
	if err != nil {
		t.Fatal(err)
	}
	types, err := newKernelTypes(spec.Types, oldKernels[0].lacks, oldKernels[0].flavours)
	if err != nil {
		t.Fatal(err)
	}
	good, err := reduceTypes(types)
	if err != nil {
		t.Fatal(err)
	}
	b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "inode", Size: 8}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	none, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := archive(t, map[string][]byte{"x86_64/1.2.3.btf": nil, own: good})
	for _, c := range []struct {
		name string
		file []byte
		want string // part of the error
	}{
		{"BTF", good, ""},
		{"archive", packed, ""},
		{"archive without this kernel", archive(t, map[string][]byte{"x86_64/1.2.3.btf": good}), own},
		{"archive cut short", packed[:len(packed)/2], "BTF archive"},
		{"types of something else", none, "not the types of a kernel"},
		{"empty", nil, "read BTF"},
		{"cut short", good[:len(good)/2], "read BTF"},
		{"text", []byte("no BTF"), "read BTF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "types")
			if err := os.WriteFile(file, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := LoadTypes(file)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sameRelocation(t, spec, types, got)
		})
	}
}

func TestFindTypes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1.btf", "arm64/1.btf", "arm64/2.btf", "3.btf/x"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for release, want := range map[string]string{"1": "1.btf", "2": "arm64/2.btf", "3": "", "4": ""} {
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if got := FindTypes(dir, "arm64", release); got != want {
			t.Errorf("release %s: %q, want %q", release, got, want)
		}
	}
}

func FuzzUnpackTypes(f *testing.F) {
	f.Add(archive(f, map[string][]byte{"x86_64/1.btf": []byte("types")}))
	f.Add(archive(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unpackTypes(bytes.NewReader(b), "x86_64", "1")
		if err == nil && len(got) > MaxTypes {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestPerfBytes(t *testing.T) {
	for _, c := range []struct{ bytes, cpus, want int }{
		{4096, 8, 4096}, {2 << 20, 1, 2 << 20}, {2 << 20, 2, 1 << 20}, {2 << 20, 3, 512 << 10},
		{2 << 20, 64, perfLeast}, {2 << 20, 1000, perfLeast}, {64 << 10, 8, 64 << 10}, {2 << 20, 0, 2 << 20},
	} {
		if got := perfBytes(c.bytes, c.cpus, 4096); got != c.want {
			t.Errorf("%d bytes for %d CPUs: %d each, want %d", c.bytes, c.cpus, got, c.want)
		}
	}
}
