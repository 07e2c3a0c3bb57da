package sensor

import (
	"debug/elf"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// What the kernels take that the legacy object is for, the meanest of 3.10 (RHEL 7.6 to 7.9),
// 4.14 and 4.19 in each respect.
const (
	oldInstructions = 4096 // BPF_MAXINSNS
	oldStack        = 512  // MAX_BPF_STACK
)

var (
	oldPrograms = []ebpf.ProgramType{ebpf.Kprobe, ebpf.TracePoint, ebpf.PerfEvent}
	oldMaps     = []ebpf.MapType{ebpf.Hash, ebpf.Array, ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUHash, ebpf.LRUCPUHash, ebpf.LPMTrie, ebpf.StackTrace, ebpf.PerfEventArray}
	oldHelpers  = []asm.BuiltinFunc{
		asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnProbeRead, asm.FnProbeReadStr,
		asm.FnKtimeGetNs, asm.FnGetCurrentTask, asm.FnGetCurrentPidTgid, asm.FnGetCurrentUidGid, asm.FnGetCurrentComm,
		asm.FnPerfEventOutput,
	}
)

// The legacy object has nothing that an old kernel lacks.
func TestLegacyLimits(t *testing.T) {
	for _, file := range files["legacy"] {
		t.Run(file, func(t *testing.T) {
			sections(t, file)
			spec, err := ebpf.LoadCollectionSpec(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(spec.Programs) < 20 || len(spec.Maps) < 8 {
				t.Fatalf("%d programs, %d maps: this is not the object", len(spec.Programs), len(spec.Maps))
			}
			for name, m := range spec.Maps {
				if !slices.Contains(oldMaps, m.Type) {
					t.Errorf("map %s: type %v", name, m.Type)
				}
				if m.Flags != 0 || m.InnerMap != nil || len(m.Contents) > 0 || m.Pinning != ebpf.PinNone {
					t.Errorf("map %s: flags %#x, or an inner map, contents, or a pin", name, m.Flags)
				}
				if m.Type == ebpf.PerCPUArray && m.ValueSize > 32<<10 {
					t.Errorf("map %s: values of %d bytes; PCPU_MIN_UNIT_SIZE is 32 KiB", name, m.ValueSize)
				}
			}
			relocated := 0
			for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
				relocated += limits(t, spec.Programs[name])
			}
			if relocated < 100 {
				t.Errorf("%d relocations: without, it fits one kernel only", relocated)
			}
		})
	}
}

// sections checks that the file has no data that would be a map, and no external symbol.
func sections(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		for _, data := range []string{".rodata", ".data", ".bss", ".kconfig", ".ksyms"} {
			if (s.Name == data || strings.HasPrefix(s.Name, data+".")) && s.Size > 0 {
				t.Errorf("section %s of %d bytes: global data are there since 5.2", s.Name, s.Size)
			}
		}
		if s.Name == ".text" && s.Size > 0 {
			t.Errorf("section .text of %d bytes: functions of their own", s.Size)
		}
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF && s.Name != "" {
			t.Errorf("symbol %s is the kernel's", s.Name)
		}
	}
}

// limits checks one program, and returns how many of its instructions CO-RE relocates.
func limits(t *testing.T, p *ebpf.ProgramSpec) (relocated int) {
	t.Helper()
	if !slices.Contains(oldPrograms, p.Type) {
		t.Errorf("%s: type %v", p.Name, p.Type)
	}
	var size uint64
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		size += ins.Size() / asm.InstructionSize
		if btf.CORERelocationMetadata(ins) != nil {
			relocated++
		}
		op := ins.OpCode
		switch {
		case ins.IsFunctionCall() || ins.IsLoadOfFunctionPointer():
			t.Errorf("%s: %d: a call of BPF by BPF", p.Name, i)
		case ins.IsKfuncCall():
			t.Errorf("%s: %d: a call of a kernel function", p.Name, i)
		case ins.IsBuiltinCall():
			if fn := asm.BuiltinFunc(ins.Constant); !slices.Contains(oldHelpers, fn) {
				t.Errorf("%s: %d: helper %v", p.Name, i, fn)
			}
		case op.Class() == asm.Jump32Class:
			t.Errorf("%s: %d: %v: 32 bits are compared since 5.1", p.Name, i, ins)
		case op.Class() == asm.JumpClass && op.JumpOp() != asm.Exit && ins.Offset < 0:
			t.Errorf("%s: %d: jumps back by %d", p.Name, i, -ins.Offset)
		case op.Class() == asm.StXClass && op.Mode() == asm.AtomicMode && ins.Constant != 0:
			t.Errorf("%s: %d: %v: an atomic operation other than addition (5.12)", p.Name, i, ins)
		case op.Class().IsLoad() && op.Mode() == asm.MemSXMode:
			t.Errorf("%s: %d: %v: a load with sign (6.6)", p.Name, i, ins)
		}
		frame := op.Class() == asm.LdXClass && ins.Src == asm.R10 ||
			(op.Class() == asm.StXClass || op.Class() == asm.StClass) && ins.Dst == asm.R10
		if frame && ins.Offset < -oldStack {
			t.Errorf("%s: %d: %d bytes of stack", p.Name, i, -ins.Offset)
		}
	}
	if size > oldInstructions {
		t.Errorf("%s: %d instructions, %d are the most", p.Name, size, oldInstructions)
	}
	return relocated
}
