package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Source is one text of configuration: a file, or the server's answer.
type Source struct {
	Name string
	Text []byte
}

// maxFile bounds what is read of a configuration file, comments included.
const maxFile = 2 * maxSource

// ReadFiles reads the configuration file at path, and all *.conf in the directory path.d,
// by name; what they say is merged in this order, the later winning.
func ReadFiles(path string) ([]Source, error) {
	paths, err := filepath.Glob(escapeGlob(path) + ".d/*.conf")
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	slices.Sort(paths)
	var all []Source
	for _, p := range append([]string{path}, paths...) {
		text, err := readRegular(p, maxFile)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		all = append(all, Source{p, text})
	}
	return all, nil
}

// escapeGlob makes a pattern that only path matches.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// readRegular reads a regular file of at most limit bytes. It is opened so that a pipe in a
// file's place does not wait for a writer.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %q: no regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %q: more than %d bytes", name, limit)
	}
	return data, nil
}

const (
	maxMatches = 10_000 // paths that a pattern may give
	maxSeen    = 200_000
)

// Glob returns the paths that match a pattern in osquery's language, sorted: % (or *)
// stands for any part of one name, and %% (or **) as the last name for all that lies below.
func Glob(pattern string) ([]string, error) {
	if !filepath.IsAbs(pattern) {
		return nil, fmt.Errorf("pattern %q: not an absolute path", pattern)
	}
	pattern = strings.ReplaceAll(pattern, "%", "*")
	dir, deep := strings.CutSuffix(pattern, "/**")
	found, err := filepath.Glob(strings.ReplaceAll(dir, "**", "*"))
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if deep {
		tops, seen := found, 0
		found = nil
		for _, top := range tops {
			// What cannot be read is left out, as if it were not there.
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if seen++; seen > maxSeen || len(found) > maxMatches {
					return fs.SkipAll
				}
				if err == nil && path != top {
					found = append(found, path)
				}
				return nil
			})
		}
		slices.Sort(found)
		return found[:min(len(found), maxMatches)], nil
	}
	slices.Sort(found)
	return found[:min(len(found), maxMatches)], nil
}
