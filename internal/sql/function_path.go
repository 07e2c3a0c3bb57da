package sql

import (
	"os"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// parentDirectory(path) is what comes before the last slash, NULL without one. (osquery
// 5.23 on Linux looks for backslashes.)
func parentDirectory(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if args[0].Type() != sqlite3.TEXT {
		return fault("Invalid inputs to parent_directory, TEXT was expected")
	}
	switch path := args[0].Text(); strings.LastIndexByte(path, '/') {
	case -1:
	case 0:
		ctx.ResultText("/")
	default:
		ctx.ResultText(path[:strings.LastIndexByte(path, '/')])
	}
	return nil
}

// findFilePath(command [, quotes [, escape]]) is the shortest beginning of a command
// line that is an existing file, empty when there is none.
func findFilePath(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	path, ok := program(args, true)
	if !ok {
		return fault("Invalid inputs to find_binary_path_from_cmd")
	}
	ctx.ResultText(path)
	return nil
}

// isPathDeterministic(command [, quotes [, escape]]) reports whether no more than one
// beginning of a command line is an existing file.
func isPathDeterministic(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	shortest, ok := program(args, true)
	if !ok {
		return fault("Invalid inputs to is_path_deterministic")
	}
	if shortest == "" || len(shortest) == len(args[0].RawText()) {
		ctx.ResultBool(true)
		return nil
	}
	longest, _ := program(args, false)
	ctx.ResultBool(len(shortest) == len(longest))
	return nil
}

// program reads the arguments of the two functions above; ok is false for bad ones.
func program(args []sqlite3.Value, shortest bool) (path string, ok bool) {
	if len(args) == 0 || anyNull(args) {
		return "", false
	}
	quotes := len(args) > 1 && args[1].Int64() != 0
	escape := byte('\\')
	if len(args) > 2 {
		e := args[2].Text()
		if len(e) != 1 {
			return "", false
		}
		escape = e[0]
	}
	return findProgram(args[0].Text(), quotes, escape, shortest), true
}

// findProgram tries each beginning of command that ends before white space.
func findProgram(command string, quotes bool, escape byte, shortest bool) string {
	const space = " \t\n\v\f\r"
	// A path is no longer than 4096 bytes; trying more only costs system calls.
	const maxPath = 4096
	var found string
	var path []byte
	var quoted, escaped bool
	command = strings.TrimLeft(command, space)
	for i := 0; i < len(command) && len(path) <= maxPath; i++ {
		b := command[i]
		switch {
		case escaped:
			escaped = false
		case quotes && b == '"':
			quoted = !quoted
			continue
		case b == escape:
			escaped = true
			continue
		case !quoted && strings.IndexByte(space, b) >= 0 && isFile(path):
			if found = string(path); shortest {
				return found
			}
		}
		path = append(path, b)
	}
	if isFile(path) {
		found = string(path)
	}
	return found
}

func isFile(path []byte) bool {
	if len(path) == 0 {
		return false
	}
	info, err := os.Stat(string(path))
	return err == nil && !info.IsDir()
}
