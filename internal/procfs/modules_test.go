package procfs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseModules(t *testing.T) {
	const text = `nf_nat 61440 2 nft_chain_nat,xt_MASQUERADE, Live 0xffffffffc0a3e000
loop 40960 0 - Live 0x0000000000000000
evil 16384 0 - Live 0xffffffffc0123000 (OE)
dying 4096 -1 - Unloading 0x0000000000000000
short 1 2 3 4
size x 0 - Live 0x0
`
	want := []Module{
		{"nf_nat", 61440, "nft_chain_nat,xt_MASQUERADE", "Live", "0xffffffffc0a3e000"},
		{"loop", 40960, "-", "Live", "0x0000000000000000"},
		{"evil", 16384, "-", "Live", "0xffffffffc0123000"},
		{"dying", 4096, "-", "Unloading", "0x0000000000000000"},
	}
	if diff := cmp.Diff(want, ParseModules([]byte(text))); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add([]byte("loop 40960 0 - Live 0x0\n,,,,, 9 9 , , ,\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range ParseModules(b) {
			if m.Name == "" || m.Status == "" || m.Address == "" {
				t.Errorf("empty words in %+v", m)
			}
		}
	})
}
