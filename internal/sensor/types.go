package sensor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// TypesSuffix ends the name of a file with a kernel's types, after the kernel's release.
const TypesSuffix = ".btf"

// MaxTypes bounds a file with types: those of all of a kernel, with each type as often as it
// is in the kernel's sources, are below it.
const MaxTypes = 512 << 20

// LoadTypes reads the types of a kernel that carries none, and keeps what the BPF objects need
// of them. The file at name is BTF or an ELF file that has it in .BTF, as pahole(1) and BTFHub
// make them, or an archive that `make btf` packs, which has such files by machine and release.
func LoadTypes(name string) (*btf.Spec, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var magic [2]byte
	var from io.ReaderAt = f
	if _, err := f.ReadAt(magic[:], 0); err == nil && magic == [2]byte{0x1f, 0x8b} {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return nil, fmt.Errorf("ask uname(2): %w", err)
		}
		b, err := unpackTypes(f, unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:]))
		if err != nil {
			return nil, fmt.Errorf("read BTF archive %q: %w", name, err)
		}
		from = bytes.NewReader(b)
	}
	b, err := ReduceTypes(from)
	if err != nil {
		return nil, fmt.Errorf("read BTF %q: %w", name, err)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(b))
}

// unpackTypes finds the file MACHINE/RELEASE.btf in an archive.
func unpackTypes(r io.Reader, machine, release string) ([]byte, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	want := path.Join(machine, release+TypesSuffix)
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("it has no %s: %w", want, os.ErrNotExist)
		}
		if err != nil {
			return nil, err
		}
		if path.Clean(h.Name) != want {
			continue
		}
		if h.Size > MaxTypes {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", want, h.Size, MaxTypes)
		}
		return io.ReadAll(io.LimitReader(t, MaxTypes))
	}
}

// FindTypes returns the file that dir has for a kernel, by its machine and release as uname(2)
// gives them: dir/RELEASE.btf or dir/MACHINE/RELEASE.btf, "" without one.
func FindTypes(dir, machine, release string) string {
	for _, name := range []string{release + TypesSuffix, filepath.Join(machine, release+TypesSuffix)} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// HasTypes reports whether an archive has the types of a kernel.
func HasTypes(archive, machine, release string) bool {
	f, err := os.Open(archive)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = unpackTypes(f, machine, release)
	return err == nil
}

// ReduceTypes returns those of a kernel's types (BTF, or an ELF file with .BTF) that the BPF objects
// are relocated by, as BTF.
// It is for external files, which hold all that the kernel is made of, sometimes once for each
// of its source files: searching them again for each program takes seconds.
func ReduceTypes(from io.ReaderAt) ([]byte, error) {
	all, err := btf.LoadSpecFromReader(from)
	if err != nil {
		return nil, err
	}
	return reduceTypes(all)
}

func reduceTypes(all *btf.Spec) ([]byte, error) {
	r := reducer{members: map[string]map[string]bool{}, made: map[btf.Type]btf.Type{}}
	for _, o := range objects {
		spec, err := o.spec()
		if err != nil {
			return nil, fmt.Errorf("read BPF object: %w", err)
		}
		for t, err := range spec.Types.All() {
			if err != nil {
				return nil, fmt.Errorf("read BPF object: %w", err)
			}
			r.asks(t)
		}
	}
	b, err := btf.NewBuilder(nil, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.members)+1)
	for name := range r.members {
		names = append(names, name)
	}
	names = append(names, controllersEnum)
	slices.Sort(names)
	found := 0
	for _, name := range names {
		types, err := all.AnyTypesByName(name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find type %q: %w", name, err)
		}
		seen := map[string]bool{}
		for _, t := range types {
			kept := r.root(t)
			if kept == nil {
				continue
			}
			var key strings.Builder
			describe(&key, kept)
			if seen[key.String()] {
				continue
			}
			seen[key.String()] = true
			if _, err := b.Add(kept); err != nil {
				return nil, fmt.Errorf("keep type %q: %w", name, err)
			}
			found++
		}
	}
	if types, err := all.AnyTypesByName("task_struct"); found == 0 || err != nil || len(types) == 0 {
		return nil, errors.New("it has no task_struct: these are not the types of a kernel")
	}
	return b.Marshal(nil, nil)
}

// controllersEnum numbers the controllers of cgroup v1 (Options.v1).
const controllersEnum = "cgroup_subsys_id"

// reducer knows which members of which structures the objects ask for, by essential names:
// without the flavours that ___ begins.
type reducer struct {
	members map[string]map[string]bool
	made    map[btf.Type]btf.Type // named structures
}

// asks notes what an object says of a structure: more than it asks for, at times, but little.
func (r *reducer) asks(t btf.Type) {
	name := t.TypeName()
	members := membersOf(t)
	if name == "" || len(members) == 0 {
		return
	}
	name, _, _ = strings.Cut(name, "___")
	if r.members[name] == nil {
		r.members[name] = map[string]bool{}
	}
	var note func(members []btf.Member)
	note = func(members []btf.Member) {
		for _, m := range members {
			if m.Name != "" {
				r.members[name][m.Name] = true
			}
			if inner := btf.UnderlyingType(m.Type); inner.TypeName() == "" { // its members are ours
				note(membersOf(inner))
			}
		}
	}
	note(members)
}

func membersOf(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// root is what is kept of a type that was found by its name.
func (r *reducer) root(t btf.Type) btf.Type {
	switch t := t.(type) {
	case *btf.Struct, *btf.Union:
		return r.keep(t, nil)
	case *btf.Enum:
		return t // of the controllers
	}
	return nil
}

// keep is what is needed of a type inside of another: what it is, and how large. Members are
// kept where a structure's own name or, for one without, those around it ask for them.
func (r *reducer) keep(t btf.Type, asked map[string]bool) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return &btf.Pointer{Target: &btf.Void{}} // no relocation goes through one
	case *btf.Int:
		return &btf.Int{Name: t.Name, Size: t.Size, Encoding: t.Encoding}
	case *btf.Enum:
		return &btf.Enum{Name: t.Name, Size: t.Size, Signed: t.Signed}
	case *btf.Array:
		return &btf.Array{Index: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Type: r.keep(t.Type, asked), Nelems: t.Nelems}
	case *btf.Struct:
		if kept := r.made[t]; kept != nil {
			return kept
		}
		kept := &btf.Struct{Name: t.Name, Size: t.Size, Members: r.keepMembers(t.Name, t.Members, asked)}
		if t.Name != "" {
			r.made[t] = kept
		}
		return kept
	case *btf.Union:
		if kept := r.made[t]; kept != nil {
			return kept
		}
		kept := &btf.Union{Name: t.Name, Size: t.Size, Members: r.keepMembers(t.Name, t.Members, asked)}
		if t.Name != "" {
			r.made[t] = kept
		}
		return kept
	case *btf.Float:
		return &btf.Float{Name: t.Name, Size: t.Size}
	}
	return &btf.Void{}
}

func (r *reducer) keepMembers(name string, members []btf.Member, asked map[string]bool) []btf.Member {
	if name != "" {
		asked = r.members[name]
	}
	var out []btf.Member
	for _, m := range members {
		if !asked[m.Name] && m.Name != "" {
			continue
		}
		kept := r.keep(m.Type, asked)
		if m.Name == "" && len(membersOf(kept)) == 0 {
			continue
		}
		out = append(out, btf.Member{Name: m.Name, Type: kept, Offset: m.Offset, BitfieldSize: m.BitfieldSize})
	}
	return out
}

// describe writes what tells t from others.
func describe(b *strings.Builder, t btf.Type) {
	fmt.Fprintf(b, "%T %q", t, t.TypeName())
	switch t := t.(type) {
	case *btf.Struct:
		fmt.Fprintf(b, " %d{", t.Size)
	case *btf.Union:
		fmt.Fprintf(b, " %d{", t.Size)
	case *btf.Array:
		fmt.Fprintf(b, "[%d] ", t.Nelems)
		describe(b, t.Type)
	case *btf.Int:
		fmt.Fprintf(b, " %d %d", t.Size, t.Encoding)
	case *btf.Enum:
		fmt.Fprintf(b, " %d %v", t.Size, t.Values)
	}
	for _, m := range membersOf(t) {
		fmt.Fprintf(b, "%q %d:%d ", m.Name, m.Offset, m.BitfieldSize)
		describe(b, m.Type)
		b.WriteByte(';')
	}
}
