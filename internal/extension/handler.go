package extension

import (
	"context"
	"errors"
	"fmt"

	"github.com/osquery/osquery-go/gen/osquery"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// handler is what extensions may call.
type handler struct{ *Manager }

var _ osquery.ExtensionManager = (*handler)(nil)

func okay() *osquery.ExtensionStatus { return &osquery.ExtensionStatus{Message: "OK"} }

func failure(err error) *osquery.ExtensionStatus {
	return &osquery.ExtensionStatus{Code: int32(osquery.ExtensionCode_EXT_FAILED), Message: err.Error()}
}

// Ping implements osquery.ExtensionManager.
func (h *handler) Ping(context.Context) (*osquery.ExtensionStatus, error) { return okay(), nil }

// Shutdown implements osquery.ExtensionManager. A manager is not ended by its extensions.
func (h *handler) Shutdown(context.Context) error { return nil }

// Call implements osquery.ExtensionManager: a table's rows, and its columns.
func (h *handler) Call(ctx context.Context, registry, item string, request osquery.ExtensionPluginRequest) (*osquery.ExtensionResponse, error) {
	if registry != "table" {
		return &osquery.ExtensionResponse{Status: failure(fmt.Errorf("registry %q is not supported: only table is", registry))}, nil
	}
	name := `"` + item + `"`
	switch request["action"] {
	case "generate":
		return h.Query(ctx, "SELECT * FROM "+name)
	case "columns":
		return h.GetQueryColumns(ctx, "SELECT * FROM "+name)
	}
	return &osquery.ExtensionResponse{Status: failure(fmt.Errorf("action %q of a table is not known", request["action"]))}, nil
}

// Extensions implements osquery.ExtensionManager.
func (h *handler) Extensions(context.Context) (osquery.InternalExtensionList, error) {
	out := osquery.InternalExtensionList{}
	for _, e := range h.Manager.Extensions() {
		out[osquery.ExtensionRouteUUID(e.UUID)] = &osquery.InternalExtensionInfo{Name: e.Name, Version: e.Version, SdkVersion: e.SDK}
	}
	out[0] = &osquery.InternalExtensionInfo{Name: "core", Version: h.o.Version, SdkVersion: "0.0.0", MinSdkVersion: "0.0.0"}
	return out, nil
}

// Options implements osquery.ExtensionManager.
func (h *handler) Options(context.Context) (osquery.InternalOptionList, error) {
	out := osquery.InternalOptionList{}
	for _, f := range h.o.Flags() {
		out[f.Name] = &osquery.InternalOptionInfo{Value: f.Value, DefaultValue: f.Default, Type: f.Type}
	}
	return out, nil
}

// RegisterExtension implements osquery.ExtensionManager.
func (h *handler) RegisterExtension(ctx context.Context, info *osquery.InternalExtensionInfo, registry osquery.ExtensionRegistry) (*osquery.ExtensionStatus, error) {
	if info == nil {
		return failure(errors.New("an extension needs a name")), nil
	}
	uuid, err := h.register(ctx, info, registry)
	if err != nil {
		h.o.Logger.Warn(fmt.Sprintf("extension %q is refused: %v", info.Name, err))
		return failure(err), nil
	}
	status := okay()
	status.UUID = osquery.ExtensionRouteUUID(uuid)
	return status, nil
}

// DeregisterExtension implements osquery.ExtensionManager.
func (h *handler) DeregisterExtension(_ context.Context, uuid osquery.ExtensionRouteUUID) (*osquery.ExtensionStatus, error) {
	if !h.remove(int64(uuid)) {
		return failure(errors.New("no extension has this UUID")), nil
	}
	h.o.Logger.Info(fmt.Sprintf("extension %d deregistered", uuid))
	return okay(), nil
}

// Query implements osquery.ExtensionManager.
func (h *handler) Query(ctx context.Context, text string) (*osquery.ExtensionResponse, error) {
	r := &rows{}
	if err := h.o.Query(ctx, text, r); err != nil {
		return &osquery.ExtensionResponse{Status: failure(err)}, nil
	}
	return &osquery.ExtensionResponse{Status: okay(), Response: r.list}, nil
}

// GetQueryColumns implements osquery.ExtensionManager: one row a column, its type by its name.
func (h *handler) GetQueryColumns(ctx context.Context, text string) (*osquery.ExtensionResponse, error) {
	r := &columnsOnly{}
	if err := h.o.Query(ctx, text, r); err != nil && !errors.Is(err, errColumns) {
		return &osquery.ExtensionResponse{Status: failure(err)}, nil
	}
	return &osquery.ExtensionResponse{Status: okay(), Response: r.list}, nil
}

// rows takes an answer as the API wants it, as long as a message may be.
type rows struct {
	names []string
	list  osquery.ExtensionPluginResponse
	size  int
}

func (r *rows) Columns(names, _ []string) error {
	r.names, r.list, r.size = names, osquery.ExtensionPluginResponse{}, 0 // of the last statement
	return nil
}

func (r *rows) Row(values []schema.Value) error {
	row := make(map[string]string, len(values))
	for i, v := range values {
		text := v.Text()
		row[r.names[i]] = text
		r.size += len(r.names[i]) + len(text) + 8
	}
	if r.size > maxMessage {
		return fmt.Errorf("the answer is more than %d bytes: ask for less", maxMessage)
	}
	r.list = append(r.list, row)
	return nil
}

func (r *rows) Warning(string) {}

var errColumns = errors.New("columns are enough")

type columnsOnly struct {
	list osquery.ExtensionPluginResponse
}

func (c *columnsOnly) Columns(names, types []string) error {
	for i, name := range names {
		kind := types[i]
		if kind == "" {
			kind = "UNKNOWN"
		}
		c.list = append(c.list, map[string]string{name: kind})
	}
	return errColumns
}

func (c *columnsOnly) Row([]schema.Value) error { return errColumns }
func (c *columnsOnly) Warning(string)           {}
