package table

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// service is a row of etc_services, or of etc_protocols.
type service struct {
	name, protocol, aliases, comment string
	number                           int64
}

// parseServices reads services(5), or protocols(5) when protocols says so: a name, a number
// (of services with a slash and the protocol), aliases, and a comment.
func parseServices(b []byte, protocols bool, add func(*service)) {
	for line := range bytes.Lines(b) {
		text, comment, _ := strings.Cut(string(line), "#")
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		s := &service{name: words[0], aliases: strings.Join(words[2:], " "), comment: strings.TrimSpace(comment)}
		number, protocol, ok := strings.Cut(words[1], "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || ok == protocols {
			continue
		}
		s.number, s.protocol = int64(n), protocol
		add(s)
	}
}

func etcServicesTable(env *Env) schema.Relation {
	return servicesTable(env, "etc_services", "Which service is at which port by name: the lines of /etc/services.", "/etc/services", false,
		schema.Str("name", func(s *service) *string { return &s.name }, "Name"),
		schema.Int("port", func(s *service) *int64 { return &s.number }, "Port").As(schema.Integer),
		schema.Str("protocol", func(s *service) *string { return &s.protocol }, "Protocol: tcp, udp …"),
		schema.Str("aliases", func(s *service) *string { return &s.aliases }, "Other names, separated by a space"),
		schema.Str("comment", func(s *service) *string { return &s.comment }, "Comment"))
}

func etcProtocolsTable(env *Env) schema.Relation {
	return servicesTable(env, "etc_protocols", "Numbers of protocols by name: the lines of /etc/protocols.", "/etc/protocols", true,
		schema.Str("name", func(s *service) *string { return &s.name }, "Name"),
		schema.Int("number", func(s *service) *int64 { return &s.number }, "Number in IP's header").As(schema.Integer),
		schema.Str("alias", func(s *service) *string { return &s.aliases }, "Other names, separated by a space"),
		schema.Str("comment", func(s *service) *string { return &s.comment }, "Comment"))
}

func servicesTable(env *Env, name, doc, file string, protocols bool, columns ...schema.Column[*service]) schema.Relation {
	t := &schema.Table[*service]{Name: name, Doc: doc, Columns: columns}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*service, error) {
		var rows []*service
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		b, err := optional(r.readFile(file, maxText))
		if err != nil {
			q.Warning(fmt.Sprintf("Table %s is incomplete: %v", name, err))
		}
		parseServices(b, protocols, func(s *service) { rows = append(rows, s) })
		return rows, ctx.Err()
	}
	return t.Bind()
}
