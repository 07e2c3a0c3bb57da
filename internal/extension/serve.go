package extension

import (
	"context"
	"fmt"
	"time"

	"github.com/osquery/osquery-go"
	gen "github.com/osquery/osquery-go/gen/osquery"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// ServeOptions are what Serve needs.
type ServeOptions struct {
	Name, Version string
	Socket        string        // osqueryd's
	Timeout       time.Duration // to wait for it
	Interval      time.Duration // between looks whether it lives
	// Choose picks tables, knowing the names of those that osqueryd has.
	Choose  func(has map[string]bool) ([]schema.Relation, error)
	Sync    func(context.Context) error // before each answer
	MaxRows int                         // of an answer
}

// Serve registers tables with an osqueryd and answers for them until ctx ends, which is no
// error, or osqueryd is gone, which is one.
func Serve(ctx context.Context, o ServeOptions) error {
	client, err := dial(ctx, o.Socket, o.Timeout)
	if err != nil {
		return err
	}
	defer client.Close()
	rows, err := client.QueryRowsContext(ctx, "SELECT name FROM osquery_registry WHERE registry = 'table' AND active = 1")
	if err != nil {
		return fmt.Errorf("ask osqueryd for its tables: %w", err)
	}
	has := map[string]bool{}
	for _, r := range rows {
		has[r["name"]] = true
	}
	relations, err := o.Choose(has)
	if err != nil {
		return err
	}
	if len(relations) == 0 {
		return fmt.Errorf("osqueryd at %q has all tables already", o.Socket)
	}
	server, err := osquery.NewExtensionManagerServer(o.Name, o.Socket, osquery.ExtensionVersion(o.Version),
		osquery.ServerTimeout(o.Timeout), osquery.ServerPingInterval(o.Interval), osquery.WithClient(client))
	if err != nil {
		return fmt.Errorf("attach to osqueryd: %w", err)
	}
	for _, r := range relations {
		server.RegisterPlugin(Plugin(r, o.Sync, o.MaxRows))
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run() }() // which Shutdown ends
	select {
	case err := <-ended:
		if err == nil {
			err = fmt.Errorf("osqueryd at %q asked the extension to end", o.Socket)
		}
		return err
	case <-ctx.Done():
		_ = server.Shutdown(context.WithoutCancel(ctx)) // osqueryd may be gone, too
		return nil
	}
}

// dial waits until somebody answers at the socket.
func dial(ctx context.Context, socket string, timeout time.Duration) (*osquery.ExtensionManagerClient, error) {
	end := time.Now().Add(timeout)
	for {
		client, err := osquery.NewClient(socket, timeout)
		if err == nil {
			var status *gen.ExtensionStatus
			if status, err = client.PingContext(ctx); err == nil && status.Code == 0 {
				return client, nil
			}
			client.Close()
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("attach to osqueryd at %q within %v: %w", socket, timeout, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
