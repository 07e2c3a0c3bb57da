package sensor

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// maxVerified bounds what the verifier has to walk through for one program, as a measure of
// the time that starting takes.
const maxVerified = 20000

// maxStart bounds it for all programs of a start with every kind: what starting takes is mostly that, and the
// same on a busy machine. It is most where each system call has a program of its own, for 32-bit callers too (6.1).
const maxStart = 250_000

// noField is what a program calls where a structure has no such field (0xbad2310, from libbpf): a
// fault of ours, and no helper that is missing.
const noField = "#195896080"

// The verifier takes each program of each object alone, and all of them over one set of maps.
// A kind of program that this kernel denies to everybody (fexit on some) is passed over and
// named.
func TestLiveVerifier(t *testing.T) {
	needRoot(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Log(err) // not needed where it may not be done
	}
	for _, o := range objects {
		t.Run(o.name, func(t *testing.T) { verify(t, o) })
	}
}

func verify(t *testing.T, obj *object) {
	spec, err := obj.spec()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{FS: procfs.At(""), Env: []string{"PATH"}, Files: new(selection.Set)}
	if err := configure(obj, spec, &o, kindMask(nil), btf.NewCache(), nil); err != nil {
		t.Fatal(err)
	}
	base, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Maps: spec.Maps, Variables: spec.Variables, Types: spec.Types, ByteOrder: spec.ByteOrder})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	l := loader{spec: spec, maps: base.Maps, cache: btf.NewCache(), fs: o.FS}
	var entries []string
	if !obj.perf {
		entries = append(entries, seedProgram, fileSeedProgram)
	}
	for _, h := range obj.hooks {
		if h.absent(procfs.At("")) { // and so are the types that its programs name
			continue
		}
		for i := range h.tiers {
			at, err := l.places(&h.tiers[i])
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range at {
				if p.function != "" && spec.Programs[p.program].Type != ebpf.Tracing {
					p.entry = p.program // the same program at each function
				}
				if !slices.Contains(entries, p.entry) {
					entries = append(entries, p.entry)
				}
			}
		}
	}
	var taken []place
	for _, entry := range entries {
		t.Run(entry, func(t *testing.T) {
			at := placeOf(entry)
			p := spec.Programs[at.program]
			c, err := l.load(at)
			if err != nil && denied(err) && (strings.HasPrefix(p.SectionName, "fexit/") || strings.HasPrefix(p.SectionName, "fentry/")) {
				t.Logf("denied by this kernel to everybody: %v", err)
				return
			}
			if errors.Is(err, btf.ErrMultipleMatches) {
				t.Logf("this kernel has more than one function of that name: %v", err)
				return
			}
			if err != nil {
				var v *ebpf.VerifierError
				if errors.As(err, &v) {
					log := strings.Join(v.Log, "\n")
					switch {
					case strings.HasPrefix(entry, "on_uring_") && !kernelAtLeast(5, 19):
						t.Logf("this kernel does not give the tracepoint the request: %v", err)
						return
					case strings.Contains(log, "invalid func ") && !strings.Contains(log, noField):
						t.Logf("this kernel lacks a helper: %v", err)
						return
					}
					t.Fatalf("%+v", v)
				}
				t.Fatal(err)
			}
			defer c.Close()
			taken = append(taken, at)
			info, err := c.Programs[at.loadedAs(p)].Info()
			if err != nil {
				t.Fatal(err)
			}
			n, ok := info.VerifiedInstructions()
			t.Logf("the verifier walked %d instructions", n)
			if ok && n > maxVerified {
				t.Errorf("the verifier walked %d instructions, want at most %d", n, maxVerified)
			}
		})
	}
	c, err := l.load(taken...)
	if err != nil {
		t.Fatalf("all together: %v", err)
	}
	c.Close()
}

// Starting stays cheap: what the verifier walks through for all that is attached does not grow unseen.
func TestLiveStart(t *testing.T) {
	l := watch(t, Options{})
	sum, programs := uint32(0), 0
	add := func(p *ebpf.Program) {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			t.Skip("this kernel does not tell what the verifier walked (from 5.16 on)")
		}
		sum, programs = sum+n, programs+1
	}
	for _, h := range l.s.hooks {
		for _, p := range h.programs {
			add(p)
		}
	}
	if l.s.seed != nil {
		add(l.s.seed.Programs[seedProgram])
	}
	t.Logf("the verifier walked %d instructions of %d programs", sum, programs)
	if sum > maxStart {
		t.Errorf("the verifier walked %d instructions for a start, want at most %d", sum, maxStart)
	}
}
