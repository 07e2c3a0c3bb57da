package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/rule"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// builtinRules stands for the rules that come with goshawk, where directories are named.
const builtinRules = "builtin"

// loadRules compiles the rules of directories. Of those that may lack, one that is not there is an
// empty one.
func loadRules(dirs []string, mayLack bool) (*rule.Set, error) {
	var trees []fs.FS
	var prefixes []string
	for _, dir := range dirs {
		if dir == builtinRules {
			trees, prefixes = append(trees, rule.Builtin()), append(prefixes, builtinRules)
			continue
		}
		st, err := os.Stat(dir)
		switch {
		case mayLack && errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("rules: %w", err)
		case !st.IsDir():
			return nil, failf(exitUsage, "rules: %s is no directory", dir)
		}
		trees, prefixes = append(trees, os.DirFS(dir)), append(prefixes, dir)
	}
	return rule.Load(trees, prefixes)
}

// detection is the engine that an agent matches events with, and what keeps its rules those
// of their directories.
type detection struct {
	dirs    []string
	mayLack bool // the directories need not be there, and may come
	engine  *rule.Engine
	users   *userNames // of the engine's goroutine
	seen    uint64     // fingerprint of the directories
	warn    func(string)
}

// openDetection loads the rules; nil when no directory is named.
func openDetection(dirs []string, mayLack bool, warn func(string)) (*detection, error) {
	if len(dirs) == 0 {
		return nil, nil
	}
	d := &detection{dirs: dirs, mayLack: mayLack, users: &userNames{}, warn: warn}
	seen := d.fingerprint()
	set, err := loadRules(dirs, mayLack)
	if err != nil {
		return nil, err
	}
	d.seen = seen
	d.engine = rule.NewEngine(set, rule.Options{User: d.users.name})
	d.tell(set)
	return d, nil
}

// tell says what of the rules is not used.
func (d *detection) tell(set *rule.Set) {
	bad := 0
	first := ""
	for _, p := range set.Problems {
		if !p.Partly {
			if bad++; bad == 1 {
				first = p.String()
			}
		}
	}
	switch {
	case bad == 1:
		d.warn("rules: " + first)
	case bad > 1:
		d.warn(fmt.Sprintf("rules: %d cannot be used, as goshawk rules check %s says; the first: %s", bad, strings.Join(d.dirs, " "), first))
	}
}

// reloadEvery is how often directories of rules are looked at.
const reloadEvery = 2 * time.Second

// follow loads the rules anew whenever their files have changed, until ctx ends. Files that
// are being written are left alone until they are the same twice.
func (d *detection) follow(ctx context.Context) {
	if !slices.ContainsFunc(d.dirs, func(dir string) bool { return dir != builtinRules }) {
		return
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	last := d.seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := d.fingerprint()
		if now == d.seen || now != last {
			last = now
			continue
		}
		d.seen = now
		set, err := loadRules(d.dirs, d.mayLack)
		if err != nil {
			d.warn(fmt.Sprintf("the rules stay as they were: %v", err))
			continue
		}
		d.engine.Follow(set)
		d.warn(fmt.Sprintf("rules: %d are followed now", len(set.Rules)))
		d.tell(set)
	}
}

// fingerprint changes with the files in the directories.
func (d *detection) fingerprint() uint64 {
	h := fnv.New64a()
	for _, dir := range d.dirs {
		if dir == builtinRules {
			continue
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s\x00%d\x00%d\x00%v\x00", path, info.Size(), info.ModTime().UnixNano(), info.Mode())
			return nil
		})
		if err != nil {
			fmt.Fprintf(h, "%v", err)
		}
	}
	return h.Sum64()
}

// setCell sets a column from JSON, as event.AppendJSON wrote it.
func setCell(c *event.Column, e event.Event, raw json.RawMessage) error {
	switch {
	case c.Str != nil && c.Form == schema.List:
		var list []string
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		text := ""
		if len(list) > 0 {
			text = strings.Join(list, "\x00") + "\x00"
		}
		c.SetStr(e, text)
	case c.Str != nil && c.Form == schema.JSON:
		c.SetStr(e, string(raw))
	case c.Str != nil:
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		c.SetStr(e, text)
	case c.Int == nil: // computed
	case c.Form == schema.Boolean:
		var yes bool
		if err := json.Unmarshal(raw, &yes); err != nil {
			return err
		}
		c.SetInt(e, schema.BoolValue(yes).Int())
	case c.Form == schema.Timestamp:
		var at time.Time
		if err := json.Unmarshal(raw, &at); err != nil {
			return err
		}
		c.SetInt(e, at.UnixNano())
	default:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			u, uerr := strconv.ParseUint(string(raw), 10, 64)
			if uerr != nil {
				return err
			}
			n = int64(u)
		}
		c.SetInt(e, n)
	}
	return nil
}

// splitProcessID takes boot and start out of a process_id.
func splitProcessID(id string) (boot string, start uint64) {
	boot, rest, _ := strings.Cut(id, "-")
	_, text, _ := strings.Cut(rest, "-")
	start, err := strconv.ParseUint(text, 36, 64)
	if err != nil {
		return "", 0
	}
	return boot, start
}
