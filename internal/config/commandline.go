package config

import (
	"errors"
	"fmt"
	"strings"
)

// ErrHelp says that help was asked for on the command line.
var ErrHelp = errors.New("help asked for")

const (
	maxFlagFile  = 1 << 20
	maxFlagFiles = 16 // flag files may name flag files
)

// Parse reads a command line as gflags does (https://gflags.github.io/gflags/): one or two
// dashes, a dash for an underscore, --name=value, --name value, and --name or --noname for
// what is true or false. Later flags win; a flag file stands where it is named. What is
// wrong on the command line is an error, in a flag file only what makes no sense is: its
// unknown flags, which osquery passes over in silence, are problems.
func Parse(args []string) (*Flags, []Problem, error) {
	p := &parser{flags: &Flags{line: map[string]string{}, options: map[string]string{}}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, ok := dashes(arg)
		if !ok {
			return nil, nil, fmt.Errorf("%q is no flag", arg)
		}
		name, value, given := strings.Cut(name, "=")
		switch name {
		case "":
			if i != len(args)-1 || given { // "--" ends the flags
				return nil, nil, fmt.Errorf("%q is no flag", args[min(i+1, len(args)-1)])
			}
			continue
		case "help", "h":
			return nil, nil, ErrHelp
		}
		flag, value, given, err := resolve(name, value, given)
		if err != nil {
			return nil, nil, err
		}
		if !given {
			i++
			if i == len(args) {
				return nil, nil, fmt.Errorf("--%s: the value is missing", flag.Name)
			}
			value = args[i]
		}
		if err := p.set(flag, value); err != nil {
			return nil, nil, fmt.Errorf("--%s: %w", flag.Name, err)
		}
	}
	return p.flags, p.problems, nil
}

type parser struct {
	flags    *Flags
	problems []Problem
	files    int
}

// dashes cuts the one or two dashes that a flag begins with.
func dashes(arg string) (string, bool) {
	name, ok := strings.CutPrefix(arg, "-")
	if !ok || name == "" {
		return "", false
	}
	return strings.TrimPrefix(name, "-"), true
}

// errUnknown is the error of a flag that nobody knows.
type errUnknown struct{ name, near string }

func (e *errUnknown) Error() string {
	if e.near != "" {
		return fmt.Sprintf("no flag is called --%s; did you mean --%s?", e.name, e.near)
	}
	return fmt.Sprintf("no flag is called --%s", e.name)
}

// resolve finds the flag that name stands for. What is true or false needs no value.
func resolve(name, value string, given bool) (Flag, string, bool, error) {
	under := strings.ReplaceAll(name, "-", "_")
	flag, ok := Known(under)
	if !ok {
		if base, no := strings.CutPrefix(under, "no"); no && !given {
			if flag, ok = Known(base); ok && flag.Type == "bool" {
				return flag, "false", true, nil
			}
		}
		return Flag{}, "", false, &errUnknown{name, nearest(under)}
	}
	if !given && flag.Type == "bool" {
		return flag, "true", true, nil
	}
	return flag, value, given, nil
}

// nearest is the flag whose name is most like name, "" when none is like it.
func nearest(name string) string {
	best, least := "", 1+len(name)/5
	for _, f := range All() {
		if d := distance(name, f.Name); d <= least {
			best, least = f.Name, d-1
		}
	}
	return best
}

// distance is the number of bytes inserted, deleted or replaced between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := corner
			if a[i] != b[j] {
				d++
			}
			corner = row[j+1]
			row[j+1] = min(d, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// set gives a flag its value; a flag file is read at once.
func (p *parser) set(flag Flag, value string) error {
	value, err := check(flag.Type, value)
	if err != nil {
		return err
	}
	name := flag.Name
	if flag.Alias != "" {
		name = flag.Alias
	}
	p.flags.line[name] = value
	if name == "flagfile" && value != "" {
		return p.file(value)
	}
	return nil
}

// file reads the flags in a file: one a line, after one or two dashes. Blank lines and those
// that begin with # say nothing.
func (p *parser) file(path string) error {
	if p.files++; p.files > maxFlagFiles {
		return fmt.Errorf("more than %d flag files: do they name each other?", maxFlagFiles)
	}
	data, err := readRegular(path, maxFlagFile)
	if err != nil {
		return fmt.Errorf("read flag file: %w", err)
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where := fmt.Sprintf("%s:%d", path, number)
		text, ok := dashes(line)
		if !ok {
			p.problems = append(p.problems, Problem{where, "this is no flag: it does not begin with --"})
			continue
		}
		name, value, given := strings.Cut(text, "=")
		// People write "--name value" too, which gflags does not read here.
		if first, rest, spaced := strings.Cut(text, " "); spaced && !strings.Contains(first, "=") {
			name, value, given = first, strings.TrimSpace(rest), true
		}
		flag, value, given, err := resolve(name, value, given)
		var unknown *errUnknown
		switch {
		case errors.As(err, &unknown):
			p.problems = append(p.problems, Problem{where, err.Error()})
			continue
		case !given:
			return fmt.Errorf("%s: --%s: the value is missing", where, flag.Name)
		}
		if err := p.set(flag, value); err != nil {
			return fmt.Errorf("%s: --%s: %w", where, flag.Name, err)
		}
	}
	return nil
}
