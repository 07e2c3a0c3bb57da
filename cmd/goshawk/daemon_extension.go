package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/extension"
	"github.com/goshawk-project/goshawk/internal/table"
)

// openManager serves the socket for extensions, unless flags say not to. A daemon without it
// is better than none, as osqueryd sees it too.
func (d *daemon) openManager() error {
	if d.line.Bool("disable_extensions") {
		return nil
	}
	ours := map[string]bool{}
	for _, r := range relations(&table.Env{FS: d.env.FS}, nil, nil) {
		for _, name := range append([]string{r.Def().Name}, r.Def().Aliases...) {
			ours[strings.ToLower(name)] = true
		}
	}
	// A table that is turned off is one that an extension may bring.
	for _, name := range words(d.line.String("disable_tables")) {
		delete(ours, strings.ToLower(name))
	}
	socket, interval := d.line.String("extensions_socket"), d.extensionSeconds("extensions_interval")
	manager, err := extension.Listen(extension.Options{
		Socket: socket, Version: table.OsqueryVersion, Query: d.Query, Changed: d.extensionsChanged, Logger: d.logger,
		Ours: func(name string) bool { return ours[name] },
		Flags: func() []extension.Flag {
			var out []extension.Flag
			for _, f := range flagRows(d.f(), nil) {
				out = append(out, extension.Flag{Name: f.Name, Type: f.Type, Default: f.Default, Value: f.Value})
			}
			return out
		},
		Timeout:  func() time.Duration { return max(d.f().Seconds("thrift_timeout"), time.Second) },
		Interval: func() time.Duration { return interval },
	})
	if err != nil {
		d.logger.Error(fmt.Sprintf("extensions cannot attach: %v", err))
		return nil
	}
	d.manager = manager
	d.env.Extensions = func() (string, []table.Extension) {
		var out []table.Extension
		for _, e := range manager.Extensions() {
			out = append(out, table.Extension{UUID: e.UUID, Name: e.Name, Version: e.Version, SDK: e.SDK, Path: e.Path, Tables: e.Tables})
		}
		return socket, out
	}
	return nil
}

// extensionNames tells which extensions' tables an engine has.
func (d *daemon) extensionNames() []string {
	if d.manager == nil {
		return nil
	}
	var out []string
	for _, e := range d.manager.Extensions() {
		out = append(out, fmt.Sprintf("%d %s", e.UUID, e.Tables))
	}
	return out
}

// extensionsChanged makes the engine anew when extensions' tables have come or gone.
func (d *daemon) extensionsChanged() {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.inForce == nil {
		return // the first configuration will find them
	}
	if err := d.put(d.inForce, d.f()); err != nil {
		d.logger.Error(fmt.Sprintf("tables of extensions: %v", err))
	}
}

// extensionSeconds is a flag that is a number of seconds although osquery says it is text.
func (d *daemon) extensionSeconds(name string) time.Duration {
	n, err := strconv.ParseUint(d.line.String(name), 10, 31)
	if err != nil {
		d.warn(fmt.Sprintf("--%s: %q is no number of seconds: it is 3", name, d.line.String(name)))
		n = 3
	}
	return max(time.Duration(n)*time.Second, time.Second)
}

// awaitExtensions waits for the extensions that must be there before the schedule begins.
func (d *daemon) awaitExtensions(ctx context.Context) error {
	required := words(d.line.String("extensions_require"))
	if len(required) == 0 {
		return nil
	}
	if d.manager == nil {
		return fmt.Errorf("--extensions_require: extensions cannot attach")
	}
	wait := d.extensionSeconds("extensions_timeout")
	end := time.Now().Add(wait)
	for {
		missing := slices.DeleteFunc(slices.Clone(required), func(name string) bool {
			return slices.ContainsFunc(d.manager.Extensions(), func(e extension.Extension) bool { return e.Name == name })
		})
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("--extensions_require: %s did not register within %v; start it, or allow more with --extensions_timeout", strings.Join(missing, ", "), wait)
		}
		if err := sleepFor(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
