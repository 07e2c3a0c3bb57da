package sensor

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// files are the compiled programs of each architecture, as committed, by object.
var files = map[string][]string{
	"modern": {"../../bpf/goshawk_x86_bpfel_gen.o", "../../bpf/goshawk_arm64_bpfel_gen.o"},
	"legacy": {"../../bpf/legacy_x86_bpfel_gen.o", "../../bpf/legacy_arm64_bpfel_gen.o"},
}

// twins are the Go sides of what crosses from the kernel. TestWireLayout fails for a rec_
// structure that is not here.
var twins = map[string]reflect.Type{
	"rec_head":       reflect.TypeFor[bpf.GoshawkRecHead](),
	"rec_exec":       reflect.TypeFor[bpf.GoshawkRecExec](),
	"rec_fork":       reflect.TypeFor[bpf.GoshawkRecFork](),
	"rec_exit":       reflect.TypeFor[bpf.GoshawkRecExit](),
	"rec_socket":     reflect.TypeFor[bpf.GoshawkRecSocket](),
	"rec_dns":        reflect.TypeFor[bpf.GoshawkRecDns](),
	"rec_cgroup":     reflect.TypeFor[bpf.GoshawkRecCgroup](),
	"rec_act":        reflect.TypeFor[bpf.GoshawkRecAct](),
	"rec_cred":       reflect.TypeFor[bpf.GoshawkRecCred](),
	"rec_credential": reflect.TypeFor[bpf.GoshawkRecCredential](),
	"rec_signal":     reflect.TypeFor[bpf.GoshawkRecSignal](),
	"rec_inode":      reflect.TypeFor[bpf.GoshawkRecInode](),
	"rec_file":       reflect.TypeFor[bpf.GoshawkRecFile](),
	"state_busy":     reflect.TypeFor[bpf.GoshawkStateBusy](),
	"settings":       reflect.TypeFor[bpf.LegacySettings](),
	"span":           reflect.TypeFor[bpf.GoshawkSpan](),
	"counts":         reflect.TypeFor[bpf.GoshawkCounts](),
}

// objectOf names structures that one object alone has.
var objectOf = map[string]string{"settings": "legacy", "state_busy": "goshawk_", "rec_inode": "goshawk_", "rec_file": "goshawk_"}

func TestWireLayout(t *testing.T) {
	for _, object := range slices.Concat(files["modern"], files["legacy"]) {
		t.Run(object, func(t *testing.T) {
			spec, err := btf.LoadSpec(object)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			for typ, err := range spec.All() {
				if err != nil {
					t.Fatal(err)
				}
				s, ok := typ.(*btf.Struct)
				if !ok || !(strings.HasPrefix(s.Name, "rec_") || s.Name == "span" || s.Name == "counts" || s.Name == "state_busy" || s.Name == "settings") {
					continue
				}
				found[s.Name] = true
				if twins[s.Name] == nil {
					t.Errorf("struct %s has no Go twin in this test", s.Name)
					continue
				}
				compareLayout(t, s, twins[s.Name])
			}
			for name := range twins {
				if only := objectOf[name]; only != "" && !strings.Contains(object, only) {
					continue
				}
				if !found[name] {
					t.Errorf("the object has no struct %s", name)
				}
			}
		})
	}
}

func compareLayout(t *testing.T, s *btf.Struct, g reflect.Type) {
	if uintptr(s.Size) != g.Size() {
		t.Errorf("%s: %d bytes in C, %d in Go", s.Name, s.Size, g.Size())
	}
	if s.Size%8 != 0 {
		t.Errorf("%s: %d bytes, not a multiple of 8", s.Name, s.Size)
	}
	members := map[string]btf.Member{}
	end := uint32(0)
	for _, m := range s.Members {
		name := goName(m.Name)
		members[name] = m
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		if m.BitfieldSize != 0 {
			t.Errorf("%s.%s is a bit field", s.Name, m.Name)
		}
		if m.Offset.Bytes() != end {
			t.Errorf("%s.%s is at %d, %d bytes of padding are not named", s.Name, m.Name, m.Offset.Bytes(), m.Offset.Bytes()-end)
		}
		end = m.Offset.Bytes() + uint32(size)
		f, ok := g.FieldByName(name)
		switch {
		case !ok:
			t.Errorf("%s.%s has no field %s in Go", s.Name, m.Name, name)
		case f.Offset != uintptr(m.Offset.Bytes()) || f.Type.Size() != uintptr(size):
			t.Errorf("%s.%s is %d bytes at %d in C, %d at %d in Go", s.Name, m.Name,
				size, m.Offset.Bytes(), f.Type.Size(), f.Offset)
		case signed(m.Type) != (f.Type.Kind() == reflect.Int32):
			t.Errorf("%s.%s is %v in C, %v in Go", s.Name, m.Name, m.Type, f.Type)
		}
	}
	if end != s.Size {
		t.Errorf("%s ends with %d bytes of padding that are not named", s.Name, s.Size-end)
	}
	for i := range g.NumField() {
		f := g.Field(i)
		if _, ok := members[f.Name]; !ok && f.Name != "_" {
			t.Errorf("%s.%s is in Go only", s.Name, f.Name)
		}
	}
}

// signed reports whether t is a signed 32-bit number.
func signed(t btf.Type) bool {
	i, ok := btf.As[*btf.Int](t)
	return ok && i.Encoding == btf.Signed && i.Size == 4
}

func goName(c string) string {
	var b strings.Builder
	for _, word := range strings.Split(c, "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// Every kind that the C side knows is an event here, with a decoder and a table; and the
// other way round.
func TestKindsComplete(t *testing.T) {
	for _, object := range files["modern"] {
		t.Run(object, func(t *testing.T) {
			spec, err := btf.LoadSpec(object)
			if err != nil {
				t.Fatal(err)
			}
			var enum *btf.Enum
			if err := spec.TypeByName("kind", &enum); err != nil {
				t.Fatal(err)
			}
			inC := map[event.ID]bool{}
			for _, v := range enum.Values {
				if v.Name == "KIND_MAX" {
					if v.Value != uint64(bpf.GoshawkKindKIND_MAX) {
						t.Errorf("KIND_MAX is %d in C, %d in Go", v.Value, bpf.GoshawkKindKIND_MAX)
					}
					continue
				}
				if v.Value >= uint64(bpf.GoshawkKindKIND_MAX) {
					t.Errorf("%s = %d does not fit the counter table", v.Name, v.Value)
				}
				id := event.ID(v.Value)
				inC[id] = true
				kind := event.ByID(id)
				if kind == nil {
					t.Errorf("%s = %d is no event", v.Name, v.Value)
					continue
				}
				if want := "KIND_" + strings.ToUpper(kind.Name); v.Name != want {
					t.Errorf("kind %d is %s in C, %s in Go", v.Value, v.Name, want)
				}
				if kind.Table == "" || len(kind.Columns) == 0 {
					t.Errorf("%s has no native table", v.Name)
				}
			}
			for _, k := range event.Kinds {
				if !slices.Contains(notOfBPF, k.ID) && !inC[k.ID] {
					t.Errorf("event %s is not in enum kind", k.Name)
				}
			}
			for k := range uint16(bpf.GoshawkKindKIND_MAX) + 10 {
				d := newDrain(t)
				raw := make([]byte, 1024)
				h := (*bpf.GoshawkRecHead)(unsafe.Pointer(&raw[0]))
				h.Kind, h.Size = k, uint32(len(raw))
				d.batch = event.NewBatch()
				err := d.s.decode.record(raw, d)
				if unknown := errors.Is(err, errKind); unknown == inC[event.ID(k)] {
					t.Errorf("kind %d: in C %v, decoded with error %v", k, inC[event.ID(k)], err)
				}
			}
		})
	}
}

// notOfBPF are the kinds that BPF programs do not report: losses and alerts are told by the agent, the
// others by the audit subsystem. A kind leaves the list with its first program.
var notOfBPF = []event.ID{
	event.KindLoss, event.KindUser, event.KindPolicy, event.KindAlert,
}

// Every program is in a tier, every tier's programs exist in the object of each architecture,
// and each kind has a hook.
func TestHooksComplete(t *testing.T) {
	for _, o := range objects {
		for _, file := range files[o.name] {
			spec, err := ebpf.LoadCollectionSpec(file)
			if err != nil {
				t.Fatal(err)
			}
			used := map[string]string{seedProgram: "seed", fileSeedProgram: FileHook} // program → hook
			hooked := map[event.ID]bool{}
			for _, h := range o.hooks {
				for _, k := range h.kinds {
					hooked[k] = true
				}
				for _, tr := range h.tiers {
					for _, entry := range tr.programs {
						p := placeOf(entry).program
						if spec.Programs[p] == nil {
							t.Errorf("%s: hook %s, tier %s: no program %s", file, h.name, tr.name, p)
						}
						if other := used[p]; other != "" && other != h.name {
							t.Errorf("%s: program %s is in hooks %s and %s", file, p, other, h.name)
						}
						used[p] = h.name
					}
				}
			}
			for p := range spec.Programs {
				if used[p] == "" {
					t.Errorf("%s: program %s is in no tier", file, p)
				}
			}
			for _, k := range event.Kinds {
				if o.perf && k.ID == event.KindSyscall {
					continue // docs/kernels.md says so
				}
				if !slices.Contains(notOfBPF, k.ID) && !hooked[k.ID] {
					t.Errorf("%s: no hook reports %s", o.name, k.Name)
				}
			}
		}
	}
}
