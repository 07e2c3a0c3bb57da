package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/table"
)

// version is set by the linker for releases.
var version = "0.1.0-dev"

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Print the version of goshawk, the commit and the Go release it was built from, the
platform, and the release of osquery whose tables and flags it speaks.`,
		Example:     "  goshawk version",
		Annotations: exitStatus(exitOK, exitUsage),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "goshawk %s%s %s %s/%s osquery/%s\n",
				version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, table.OsqueryVersion)
			return failed(err)
		},
	}
}

// commit is " commit-abcdef012345", with a + when the tree had changes, or nothing.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+"
		}
	}
	if revision == "" {
		return ""
	}
	return " commit-" + revision[:min(12, len(revision))] + changed
}
