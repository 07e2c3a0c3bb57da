// Package table holds the snapshot tables (the present state of this host) and the
// osquery-named event tables. A table is a literal: names, types and flags of columns with
// a getter each, and a function that makes rows. It reads /proc and /sys through procfs
// only, knows no SQL, and owns no state beyond caches.
package table

import (
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// Env is what tables read from; cmd fills it.
type Env struct {
	FS procfs.FS
	// HostRoot is where the host's root directory is seen, "" for /.
	HostRoot string
}

// All returns every snapshot table, in the order in which `goshawk tables` lists them.
func All(env *Env) []schema.Relation {
	var all []schema.Relation
	all = append(all, processTables(env)...)
	all = append(all, hostTables(env)...)
	return all
}
