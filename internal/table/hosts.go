package table

import (
	"bytes"
	"context"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const maxHosts = 64 << 20 // lists of blocked names run to some ten MiB

// hostEntry is one line of /etc/hosts.
type hostEntry struct {
	address, names string
	pid            int64
}

// parseHosts reads hosts(5): an address, then its names up to a #.
func parseHosts(b []byte) []*hostEntry {
	var out []*hostEntry
	for line := range bytes.Lines(b) {
		line, _, _ = bytes.Cut(line, []byte{'#'})
		words := bytes.Fields(line)
		if len(words) > 0 {
			out = append(out, &hostEntry{
				address: string(words[0]),
				names:   string(bytes.Join(words[1:], []byte{' '})),
			})
		}
	}
	return out
}

func etcHostsTable(env *Env) schema.Relation {
	t := &schema.Table[*hostEntry]{
		Name: "etc_hosts",
		Doc:  "The lines of /etc/hosts.",
		Columns: []schema.Column[*hostEntry]{
			schema.Str("address", func(h *hostEntry) *string { return &h.address }, "IP address"),
			schema.Str("hostnames", func(h *hostEntry) *string { return &h.names }, "Names of that address, separated by a space"),
			schema.Int("pid_with_namespace", func(h *hostEntry) *int64 { return &h.pid }, namespaceDoc, schema.Hidden, schema.Additional).As(schema.Integer),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*hostEntry, error) {
		var rows []*hostEntry
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			b, err := optional(s.readFile("/etc/hosts", maxHosts))
			for _, h := range parseHosts(b) {
				h.pid = s.pid
				rows = append(rows, h)
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}
