package main

import (
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/goshawk-project/goshawk/internal/sensor"
)

// sensing is how programs are attached: the flags that run and check share.
type sensing struct {
	tiers []string
	btf   string
}

func (s *sensing) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&s.tiers, "tier", nil, "attach a hook in this way only, as HOOK=TIER (repeat, or with commas); goshawk check lists both, tier none means not at all")
	f.StringVar(&s.btf, "btf", "", "file with the running kernel's types, for kernels that carry none")
}

// check finds wrong usage before anything is touched.
func (s *sensing) check() error {
	seen := make(map[string]bool)
	for _, word := range s.tiers {
		hook, tier, ok := strings.Cut(word, "=")
		if !ok || hook == "" || tier == "" {
			return failf(exitUsage, "--tier: %q is not HOOK=TIER; hooks are %s", word, strings.Join(sensor.HookNames(), ", "))
		}
		if seen[hook] {
			return failf(exitUsage, "--tier: hook %q is given twice", hook)
		}
		seen[hook] = true
	}
	if err := sensor.CheckTiers(s.forced()); err != nil {
		return failf(exitUsage, "--tier: %w", err)
	}
	if s.btf != "" {
		if st, err := os.Stat(s.btf); err != nil {
			return failf(exitUsage, "--btf: %w", err)
		} else if !st.Mode().IsRegular() {
			return failf(exitUsage, "--btf: %q is no regular file", s.btf)
		}
	}
	return nil
}

// forced is the only tier to try of each hook that --tier names.
func (s *sensing) forced() map[string]string {
	tiers := make(map[string]string)
	for _, word := range s.tiers {
		hook, tier, _ := strings.Cut(word, "=")
		tiers[hook] = tier
	}
	return tiers
}
