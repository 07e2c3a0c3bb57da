package sensor

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// A grant is what this kernel says to one tier of a hook.
type grant struct {
	Object  string   `json:"object"`
	Hook    string   `json:"hook"`
	Kinds   []string `json:"kinds"`
	Tier    string   `json:"tier"`
	Refused string   `json:"refused,omitempty"` // why; empty: it works
}

// Every tier of every hook is attached for a moment, alone. What a kernel refuses is named,
// and is no fault but for what the verifier does not take. With GOSHAWK_TIERS the list is
// written to that file, for docs/kernels.md.
func TestLiveGrants(t *testing.T) {
	needRoot(t)
	_ = rlimit.RemoveMemlock() // not needed where it may not be done
	var all []grant
	for _, o := range objects {
		all = append(all, grants(t, o)...)
	}
	if name := os.Getenv("GOSHAWK_TIERS"); name != "" {
		b, err := json.MarshalIndent(all, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func grants(t *testing.T, obj *object) []grant {
	spec, err := obj.spec()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{FS: procfs.At(""), Env: []string{"PATH"}, Files: new(selection.Set)}
	cache := btf.NewCache()
	if err := configure(obj, spec, &o, kindMask(nil), cache, nil); err != nil {
		t.Fatal(err)
	}
	base, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Maps: spec.Maps, Variables: spec.Variables, Types: spec.Types, ByteOrder: spec.ByteOrder})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	l := loader{spec: spec, maps: base.Maps, cache: cache, tried: map[string]bool{}, denied: map[string]error{}, fs: o.FS}
	defer func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	var all []grant
	for i := range obj.hooks {
		h := &obj.hooks[i]
		if h.absent(o.FS) {
			continue
		}
		works := 0
		for k := range h.tiers {
			g := grant{Object: obj.name, Hook: h.name, Tier: h.tiers[k].name}
			for _, id := range h.kinds {
				g.Kinds = append(g.Kinds, id.String())
			}
			a := &attached{hook: h}
			x := &trial{hook: a, tier: &h.tiers[k]}
			err := l.unfit(h, x.tier)
			if err == nil {
				err = l.loadTier(x)
			}
			if err == nil {
				err = l.link(x)
			}
			if e := a.close(); e != nil {
				t.Errorf("%s at %s: close: %v", h.name, g.Tier, e)
			}
			switch {
			case err == nil:
				works++
			default:
				g.Refused = oneLine(err)
				if fault(err) {
					t.Errorf("%s at %s: %v", h.name, g.Tier, err)
				}
				t.Logf("%s at %s: %s", h.name, g.Tier, g.Refused)
			}
			all = append(all, g)
		}
		if works == 0 && !obj.perf && refusal(t, h.name, h.tiers[0].name) == "" {
			t.Errorf("no tier of hook %s works here", h.name)
		}
	}
	return all
}

// fault reports whether the verifier refused a program for what it does, and not for a
// helper that this kernel has not or does not give to its kind.
func fault(err error) bool {
	var v *ebpf.VerifierError
	if !errors.As(err, &v) || len(v.Log) == 0 {
		return false
	}
	log := strings.Join(v.Log, "\n")
	return !strings.Contains(log, "invalid func ") && !strings.Contains(log, "unknown func ") &&
		!strings.Contains(log, "cannot use helper")
}
