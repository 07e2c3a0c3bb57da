package sensor

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// oldVerifier walks through a program as kernel/bpf/verifier.c did in 4.14 and, with constant
// set, from 4.15 on (and in RHEL 7): a model of what matters to our programs, from the
// kernel's source. Where it simplifies it is the stricter. Such kernels cannot be had here.
type oldVerifier struct {
	ins      []asm.Instruction
	at       map[int]int // place in eight-byte words → index
	word     []int       // and back
	maps     map[string]*ebpf.MapSpec
	context  int  // bytes of the program's context that may be read
	from     int  // and from where
	constant bool // a comparison of constants is decided (3bf15921, 4.15)

	live     [][11]bool // registers that are read later on
	explored map[int][]oldState
	id       int
	walked   int
}

type oldKind uint8

const (
	kindNone oldKind = iota
	kindScalar
	kindContext
	kindMap
	kindValue
	kindValueOrNull
	kindStack
	kindOther // a pointer that may be handed on only
)

// oldReg is what is known of a register: of a scalar its range; of a pointer where it points,
// and up to how much further.
type oldReg struct {
	kind     oldKind
	min, max uint64
	m        string
	off      int64
	id       int
}

const (
	byteInvalid = iota
	byteMisc
	byteSpill
)

type oldState struct {
	regs  [11]oldReg
	bytes [512]uint8 // of the stack, from its deepest
	spill [64]oldReg
}

var unknown = oldReg{kind: kindScalar, max: ^uint64(0)}

func scalar(n uint64) oldReg { return oldReg{kind: kindScalar, min: n, max: n} }

func (r *oldReg) isConst() bool { return r.kind == kindScalar && r.min == r.max }

const (
	oldWalked  = 131072 // BPF_COMPLEXITY_LIMIT_INSNS
	oldPending = 1024   // BPF_COMPLEXITY_LIMIT_STACK
)

// verify returns how many instructions were walked, and what is wrong.
func (v *oldVerifier) verify() (int, error) {
	v.at = map[int]int{}
	word := 0
	for i := range v.ins {
		v.at[word] = i
		v.word = append(v.word, word)
		word += int(v.ins[i].Size() / asm.InstructionSize)
	}
	v.findLive()
	v.explored = map[int][]oldState{}
	type branch struct {
		pc int
		s  oldState
	}
	first := oldState{}
	first.regs[1] = oldReg{kind: kindContext}
	first.regs[10] = oldReg{kind: kindStack}
	pending := []branch{{0, first}}
	targets := v.targets()
	for len(pending) > 0 {
		b := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		pc, s := b.pc, b.s
	path:
		for {
			if pc >= len(v.ins) {
				return v.walked, fmt.Errorf("fell off the end")
			}
			if targets[pc] {
				for i := range v.explored[pc] {
					if v.covers(&v.explored[pc][i], &s, pc) {
						break path
					}
				}
				v.explored[pc] = append(v.explored[pc], s)
			}
			if v.walked++; v.walked > oldWalked {
				return v.walked, fmt.Errorf("too complex: %d instructions were walked", v.walked)
			}
			ins := &v.ins[pc]
			if ins.OpCode.Class() == asm.JumpClass && ins.OpCode.JumpOp() != asm.Call {
				switch op := ins.OpCode.JumpOp(); op {
				case asm.Exit:
					if s.regs[0].kind != kindScalar {
						return v.walked, fmt.Errorf("%d: R0 is no number at exit", pc)
					}
					break path
				case asm.Ja:
					pc = v.jump(pc)
				default:
					takes, falls := s, s
					take, fall, err := v.compare(ins, &takes, &falls)
					if err != nil {
						return v.walked, fmt.Errorf("%d: %v: %w", pc, ins, err)
					}
					if take && fall {
						if pending = append(pending, branch{v.jump(pc), takes}); len(pending) > oldPending {
							return v.walked, fmt.Errorf("%d: too many branches", pc)
						}
					}
					if fall {
						pc, s = pc+1, falls
					} else {
						pc, s = v.jump(pc), takes
					}
				}
				continue
			}
			if err := v.step(ins, &s); err != nil {
				return v.walked, fmt.Errorf("%d: %v: %w", pc, ins, err)
			}
			pc++
		}
	}
	return v.walked, nil
}

func (v *oldVerifier) jump(pc int) int { return v.at[v.word[pc]+1+int(v.ins[pc].Offset)] }

// targets are the places where the kernel compares states: where a jump leads, what follows
// a conditional one, and what follows a call.
func (v *oldVerifier) targets() []bool {
	out := make([]bool, len(v.ins)+1)
	for i := range v.ins {
		if op := v.ins[i].OpCode; op.Class() == asm.JumpClass && op.JumpOp() != asm.Exit {
			out[i+1] = out[i+1] || op.JumpOp() != asm.Ja
			if op.JumpOp() != asm.Call {
				out[v.jump(i)] = true
			}
		}
	}
	return out
}

// findLive finds which registers are read before they are written again, at each place.
func (v *oldVerifier) findLive() {
	v.live = make([][11]bool, len(v.ins)+1)
	for i := len(v.ins) - 1; i >= 0; i-- { // jumps go forward: once will do
		ins := &v.ins[i]
		op := ins.OpCode
		l := v.live[i+1]
		if op.Class() == asm.JumpClass {
			switch op.JumpOp() {
			case asm.Exit:
				l = [11]bool{0: true}
			case asm.Call:
				l[0] = false
				for r := 1; r <= 5; r++ {
					l[r] = true
				}
			case asm.Ja:
				l = v.live[v.jump(i)]
			default:
				for r, x := range v.live[v.jump(i)] {
					l[r] = l[r] || x
				}
				l[ins.Dst] = true
				if op.Source() == asm.RegSource {
					l[ins.Src] = true
				}
			}
		} else {
			switch op.Class() {
			case asm.LdClass:
				l[ins.Dst] = false
			case asm.LdXClass:
				l[ins.Dst] = false
				l[ins.Src] = true
			case asm.StClass:
				l[ins.Dst] = true
			case asm.StXClass:
				l[ins.Dst], l[ins.Src] = true, true
			default:
				if op.ALUOp() == asm.Mov {
					l[ins.Dst] = false
				} else {
					l[ins.Dst] = true
				}
				if op.Source() == asm.RegSource && op.ALUOp() != asm.Swap && op.ALUOp() != asm.Neg {
					l[ins.Src] = true
				}
			}
		}
		v.live[i] = l
	}
}

// covers reports whether what is safe in state old is so in s (states_equal).
func (v *oldVerifier) covers(old, s *oldState, pc int) bool {
	for r := range old.regs {
		o, c := old.regs[r], s.regs[r]
		if !v.live[pc][r] || o.kind == kindNone {
			continue
		}
		o.id, c.id = 0, 0
		if o.kind == kindScalar && c.kind == kindScalar {
			if c.min < o.min || c.max > o.max {
				return false
			}
			continue
		}
		if o != c {
			return false
		}
	}
	for i, t := range old.bytes {
		if t != byteInvalid && t != s.bytes[i] {
			return false
		}
		if t == byteSpill {
			o, c := old.spill[i/8], s.spill[i/8]
			o.id, c.id = 0, 0
			if o != c {
				return false
			}
		}
	}
	return true
}

// compare follows a conditional jump: whether each way may be taken, and what is known there.
func (v *oldVerifier) compare(ins *asm.Instruction, takes, falls *oldState) (take, fall bool, err error) {
	d := takes.regs[ins.Dst]
	if d.kind == kindNone {
		return false, false, fmt.Errorf("R%d is not set", ins.Dst)
	}
	op := ins.OpCode.JumpOp()
	if ins.OpCode.Source() == asm.RegSource {
		if takes.regs[ins.Src].kind == kindNone {
			return false, false, fmt.Errorf("R%d is not set", ins.Src)
		}
		return true, true, nil
	}
	n := uint64(ins.Constant)
	if op == asm.JEq || op == asm.JNE {
		if d.isConst() {
			switch {
			case d.min == n:
				return op == asm.JEq, op == asm.JNE, nil
			case v.constant:
				return op == asm.JNE, op == asm.JEq, nil
			}
			return true, true, nil
		}
		same, other := takes, falls
		if op == asm.JNE {
			same, other = falls, takes
		}
		if d.kind == kindValueOrNull && n == 0 {
			same.settle(d.id, scalar(0))
			d.kind = kindValue
			other.settle(d.id, d)
			return true, true, nil
		}
		if d.kind == kindScalar {
			same.regs[ins.Dst] = scalar(n)
		}
		return true, true, nil
	}
	if d.kind != kindScalar {
		return true, true, nil
	}
	t, f := &takes.regs[ins.Dst], &falls.regs[ins.Dst]
	if int64(n) < 0 {
		return true, true, nil
	}
	switch op {
	case asm.JGT:
		t.min, f.max = max(t.min, n+1), min(f.max, n)
	case asm.JGE:
		t.min = max(t.min, n)
		if n > 0 {
			f.max = min(f.max, n-1)
		}
	case asm.JLT:
		f.min = max(f.min, n)
		if n > 0 {
			t.max = min(t.max, n-1)
		}
	case asm.JLE:
		t.max, f.min = min(t.max, n), max(f.min, n+1)
	}
	return true, true, nil
}

// settle tells all copies of a looked up value whether it is there.
func (s *oldState) settle(id int, to oldReg) {
	for r := range s.regs {
		if s.regs[r].kind == kindValueOrNull && s.regs[r].id == id {
			off := s.regs[r].off
			s.regs[r] = to
			s.regs[r].off = off
			if to.kind == kindScalar {
				s.regs[r].off = 0
			}
		}
	}
	for i := range s.spill {
		if s.spill[i].kind == kindValueOrNull && s.spill[i].id == id {
			if to.kind == kindScalar { // no longer a pointer: its bytes are just there
				s.spill[i] = oldReg{}
				for b := i * 8; b < i*8+8; b++ {
					s.bytes[b] = byteMisc
				}
				continue
			}
			s.spill[i] = to
		}
	}
}

func (v *oldVerifier) step(ins *asm.Instruction, s *oldState) error {
	op := ins.OpCode
	need := func(r asm.Register) error {
		if s.regs[r].kind == kindNone {
			return fmt.Errorf("R%d is not set", r)
		}
		return nil
	}
	switch op.Class() {
	case asm.JumpClass:
		return v.call(ins, s)
	case asm.LdClass:
		if ins.IsLoadFromMap() {
			s.regs[ins.Dst] = oldReg{kind: kindMap, m: ins.Reference()}
			return nil
		}
		if ins.Dst == asm.R10 {
			return fmt.Errorf("R10 is written")
		}
		s.regs[ins.Dst] = scalar(uint64(ins.Constant))
		return nil
	case asm.LdXClass:
		if err := need(ins.Src); err != nil {
			return err
		}
		r, err := v.load(s, s.regs[ins.Src], int64(ins.Offset), op.Size().Sizeof())
		if err != nil {
			return err
		}
		s.regs[ins.Dst] = r
		return nil
	case asm.StClass, asm.StXClass:
		if err := need(ins.Dst); err != nil {
			return err
		}
		value := scalar(uint64(ins.Constant))
		if op.Class() == asm.StXClass {
			if err := need(ins.Src); err != nil {
				return err
			}
			value = s.regs[ins.Src]
			if op.Mode() == asm.AtomicMode {
				value = unknown
			}
		}
		return v.store(s, s.regs[ins.Dst], int64(ins.Offset), op.Size().Sizeof(), value)
	}
	src := scalar(uint64(ins.Constant))
	if op.Source() == asm.RegSource && op.ALUOp() != asm.Swap {
		if err := need(ins.Src); err != nil {
			return err
		}
		src = s.regs[ins.Src]
	}
	if op.ALUOp() == asm.Mov && op.Class() == asm.ALU64Class {
		s.regs[ins.Dst] = src
		return nil
	}
	if err := need(ins.Dst); err != nil && op.ALUOp() != asm.Mov {
		return err
	}
	if op.Class() == asm.ALUClass {
		s.regs[ins.Dst] = oldReg{kind: kindScalar, max: 1<<32 - 1}
		if op.ALUOp() == asm.Swap {
			s.regs[ins.Dst].max = ^uint64(0)
		}
		return nil
	}
	return v.alu(op.ALUOp(), &s.regs[ins.Dst], src)
}

func (v *oldVerifier) alu(op asm.ALUOp, d *oldReg, src oldReg) error {
	if d.kind != kindScalar || src.kind != kindScalar {
		p, n := *d, src
		if d.kind == kindScalar {
			p, n = src, *d
		}
		switch {
		case p.kind == kindValueOrNull || p.kind == kindMap:
			return fmt.Errorf("arithmetic on a pointer that may be none")
		case n.kind != kindScalar || op != asm.Add && op != asm.Sub || op == asm.Sub && d.kind == kindScalar:
			*d = unknown // pointers may leak to root
			return nil
		case p.kind == kindContext || p.kind == kindOther:
			*d = oldReg{kind: kindOther}
			return nil
		case n.isConst():
			if op == asm.Sub {
				p.off -= int64(n.min)
			} else {
				p.off += int64(n.min)
			}
			*d = p
			return nil
		case p.kind == kindStack || op == asm.Sub:
			*d = oldReg{kind: kindOther}
			return nil
		}
		if n.max >= 1<<29 || p.max+n.max >= 1<<29 { // BPF_MAX_VAR_OFF
			*d = oldReg{kind: kindOther}
			return nil
		}
		p.min, p.max = p.min+n.min, p.max+n.max
		*d = p
		return nil
	}
	a, b := *d, src
	out := unknown
	switch op {
	case asm.Add:
		if a.max+b.max >= a.max {
			out.min, out.max = a.min+b.min, a.max+b.max
		}
	case asm.Sub:
		if a.min >= b.max {
			out.min, out.max = a.min-b.max, a.max-b.min
		}
	case asm.And:
		out.max = min(a.max, b.max)
	case asm.LSh:
		if b.isConst() && b.min < 64 && a.max<<b.min>>b.min == a.max {
			out.min, out.max = a.min<<b.min, a.max<<b.min
		}
	case asm.RSh:
		if b.isConst() && b.min < 64 {
			out.min, out.max = a.min>>b.min, a.max>>b.min
		}
	}
	if a.isConst() && b.isConst() {
		switch op {
		case asm.Add:
			out = scalar(a.min + b.min)
		case asm.Sub:
			out = scalar(a.min - b.min)
		case asm.And:
			out = scalar(a.min & b.min)
		case asm.Or:
			out = scalar(a.min | b.min)
		}
	}
	*d = out
	return nil
}

// within checks an access of size bytes from p on.
func (v *oldVerifier) within(p oldReg, off int64, size uint64) error {
	if p.kind != kindValue {
		return fmt.Errorf("no pointer to read or write by")
	}
	limit := int64(v.maps[p.m].ValueSize)
	from, to := p.off+off+int64(p.min), p.off+off+int64(p.max)+int64(size)
	if from < 0 || to > limit || size == 0 {
		return fmt.Errorf("%d bytes at %d to %d of map %s, whose values have %d", size, from, to, p.m, limit)
	}
	return nil
}

func (v *oldVerifier) load(s *oldState, p oldReg, off int64, size int) (oldReg, error) {
	out := unknown
	if size < 8 {
		out.max = 1<<(8*size) - 1
	}
	switch p.kind {
	case kindContext:
		if off < int64(v.from) || off+int64(size) > int64(v.context) || off%int64(size) != 0 {
			return out, fmt.Errorf("%d bytes at %d of the context", size, off)
		}
		return out, nil
	case kindStack:
		at := 512 + p.off + off
		if at < 0 || at+int64(size) > 512 || at%int64(size) != 0 {
			return out, fmt.Errorf("%d bytes at %d of the stack", size, p.off+off)
		}
		if s.bytes[at] == byteSpill {
			if size != 8 {
				return out, fmt.Errorf("a part of a pointer on the stack")
			}
			return s.spill[at/8], nil
		}
		for _, t := range s.bytes[at : at+int64(size)] {
			if t != byteMisc {
				return out, fmt.Errorf("stack at %d was not written", p.off+off)
			}
		}
		return out, nil
	}
	return out, v.within(p, off, uint64(size))
}

func (v *oldVerifier) store(s *oldState, p oldReg, off int64, size int, value oldReg) error {
	if p.kind != kindStack {
		return v.within(p, off, uint64(size))
	}
	at := 512 + p.off + off
	if at < 0 || at+int64(size) > 512 || at%int64(size) != 0 {
		return fmt.Errorf("%d bytes at %d of the stack", size, p.off+off)
	}
	if value.kind != kindScalar && size != 8 {
		return fmt.Errorf("a part of a pointer is written")
	}
	slot := at / 8
	if s.bytes[at] == byteSpill && size != 8 {
		return fmt.Errorf("a part of a pointer on the stack is written over")
	}
	kind := uint8(byteMisc)
	s.spill[slot] = oldReg{}
	if value.kind != kindScalar { // what is known of a number is forgotten
		kind = byteSpill
		s.spill[slot] = value
	}
	for i := at; i < at+int64(size); i++ {
		s.bytes[i] = kind
	}
	return nil
}

// memory checks memory that a helper reads or, with fills, writes.
func (v *oldVerifier) memory(s *oldState, r int, size oldReg, fills bool) error {
	if size.kind != kindScalar || size.min == 0 || size.max >= 1<<29 {
		return fmt.Errorf("R%d: its size is between %d and %d", r, size.min, size.max)
	}
	p := s.regs[r]
	if p.kind != kindStack {
		if err := v.within(p, 0, size.max); err != nil {
			return fmt.Errorf("R%d: %w", r, err)
		}
		return nil
	}
	at := 512 + p.off
	if at < 0 || at+int64(size.max) > 512 {
		return fmt.Errorf("R%d: %d bytes at %d of the stack", r, size.max, p.off)
	}
	for i := at; i < at+int64(size.max); i++ {
		if fills {
			s.bytes[i], s.spill[i/8] = byteMisc, oldReg{}
		} else if s.bytes[i] != byteMisc {
			return fmt.Errorf("R%d: stack at %d is not plain data", r, i-512)
		}
	}
	return nil
}

func (v *oldVerifier) call(ins *asm.Instruction, s *oldState) error {
	constant := func(n uint32) oldReg { return scalar(uint64(n)) }
	mapOf := func() (*ebpf.MapSpec, error) {
		if s.regs[1].kind != kindMap {
			return nil, fmt.Errorf("R1 is no map")
		}
		return v.maps[s.regs[1].m], nil
	}
	result := unknown
	var err error
	switch fn := asm.BuiltinFunc(ins.Constant); fn {
	case asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem:
		var m *ebpf.MapSpec
		if m, err = mapOf(); err != nil {
			return err
		}
		// Keys and values on the stack alone: of maps from 4.18 on (d71962f3e627).
		if s.regs[2].kind != kindStack || fn == asm.FnMapUpdateElem && s.regs[3].kind != kindStack {
			return fmt.Errorf("a key or value that is not on the stack")
		}
		if err = v.memory(s, 2, constant(m.KeySize), false); err != nil {
			return err
		}
		if fn == asm.FnMapUpdateElem {
			err = v.memory(s, 3, constant(m.ValueSize), false)
		}
		if fn == asm.FnMapLookupElem {
			v.id++
			result = oldReg{kind: kindValueOrNull, m: s.regs[1].m, id: v.id}
		}
	case asm.FnProbeRead, asm.FnProbeReadStr:
		if s.regs[3].kind == kindNone {
			return fmt.Errorf("R3 is not set")
		}
		err = v.memory(s, 1, s.regs[2], true)
	case asm.FnPerfEventOutput:
		switch {
		case s.regs[1].kind != kindContext:
			return fmt.Errorf("R1 is not the context")
		case s.regs[2].kind != kindMap || v.maps[s.regs[2].m].Type != ebpf.PerfEventArray:
			return fmt.Errorf("R2 is no perf event array")
		}
		err = v.memory(s, 4, s.regs[5], false)
	case asm.FnKtimeGetNs, asm.FnGetCurrentTask, asm.FnGetCurrentPidTgid:
	default:
		return fmt.Errorf("helper %d", ins.Constant)
	}
	for r := 1; r <= 5; r++ {
		s.regs[r] = oldReg{}
	}
	s.regs[0] = result
	return err
}
