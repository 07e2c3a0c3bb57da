// Command goshawk audits a Linux host: it watches processes and sockets through eBPF,
// keeps what it saw, and answers SQL over it and over the host's present state.
//
// This package is flags, wiring and exit codes, a file for each subcommand. It alone knows
// which parts there are; no part knows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/canary"
)

// Exit codes, the same for every command.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnsupported = 3 // this kernel cannot do it
	exitPrivilege   = 4 // this user may not do it
	exitBusy        = 5 // another agent holds the resource
)

// exitError is an error with the code that the process ends with.
type exitError struct {
	code int
	err  error // nil: the command has said all there is to say
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failf makes an exitError.
func failf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == canary.Argument {
		os.Exit(canary.Child())
	}
	args := os.Args[1:]
	if strings.HasSuffix(os.Args[0], ".ext") { // as osqueryd starts what extensions.load names
		args = append([]string{"extension"}, args...)
	}
	os.Exit(execute(args, os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code.
func execute(args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	command, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		// What cobra itself refuses: unknown commands and flags, wrong arguments.
		fmt.Fprintf(errOut, "goshawk: %s; see %s --help\n", oneLine(err), command.CommandPath())
		return exitUsage
	}
	if exit.err != nil {
		fmt.Fprintf(errOut, "goshawk: %s\n", oneLine(exit.err))
	}
	return exit.code
}

// oneLine is the text of an error on one line.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "goshawk",
		Short: "Watch the processes, connections and files of this host, and query them with SQL",
		Long: `Goshawk watches the processes, connections and files of this host and of the containers
on it, through eBPF or the audit subsystem; keeps what it saw in a local store; matches detection
rules as it happens; and answers SQL in osquery's dialect over these events and over the present
state of the host.`,
		Example: `  goshawk run                             print what happens, until Ctrl-C
  goshawk query "SELECT * FROM processes" ask about the present state
  goshawk check                           see what this kernel allows`,
		Annotations:       exitStatus(exitOK, exitFailed, exitUsage),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate("{{.Long}}\n\n" + usageTemplate)
	root.AddCommand(newRun(), newDaemon(), newExtension(), newQuery(), newCheck(), newTables(), newTop(), newRules(), newFIM(), newVersion())
	return root
}

// exitMeanings are what a command's help says of its exit codes.
var exitMeanings = map[int]string{
	exitOK:          "done",
	exitFailed:      "failed; the reason is on standard error",
	exitUsage:       "wrong usage",
	exitUnsupported: "this kernel does not support it",
	exitPrivilege:   "missing privilege",
	exitBusy:        "another agent holds the store",
}

// exitStatus is the annotation that the help's section on exit codes is made from.
func exitStatus(codes ...int) map[string]string {
	var b strings.Builder
	for _, c := range codes {
		fmt.Fprintf(&b, "  %d  %s\n", c, exitMeanings[c])
	}
	return map[string]string{"exit": strings.TrimRight(b.String(), "\n")}
}

const usageTemplate = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{with .Annotations.exit}}

Exit status:
{{.}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}
`
