package table

import (
	"context"
	"fmt"
	"strings"

	"github.com/goshawk-project/goshawk/internal/container"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func dockerContainerEnvs(env *Env) schema.Relation {
	type row = *dockerPair
	t := &schema.Table[row]{
		Name: "docker_container_envs",
		Doc:  "Environment variables that Docker's containers are started with",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index).Collated("nocase"),
			schema.Str("key", func(r row) *string { return &r.key }, "Name of the variable", schema.Index),
			schema.Str("value", func(r row) *string { return &r.value }, "Value of the variable"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.eachDockerContainer(ctx, t.Def(), q, func(id string, c *container.DockerContainer, d *container.DockerAPI) error {
			details, err := d.Details(ctx, c.ID)
			if err != nil {
				return ctx.Err() // it is gone
			}
			for _, one := range details.Config.Env {
				key, value, _ := strings.Cut(one, "=")
				rows = append(rows, &dockerPair{id, key, value})
			}
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// dockerPort is a row of docker_container_ports.
type dockerPort struct {
	id string
	container.DockerPort
}

func dockerContainerPorts(env *Env) schema.Relation {
	type row = *dockerPort
	t := &schema.Table[row]{
		Name: "docker_container_ports",
		Doc:  "Ports of Docker's containers",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index).Collated("nocase"),
			schema.Str("type", func(r row) *string { return &r.Type }, "Protocol: tcp, udp, sctp"),
			schema.Int("port", func(r row) *int64 { return &r.PrivatePort }, "Port in the container").As(schema.Integer),
			schema.Str("host_ip", func(r row) *string { return &r.IP }, "Address of the host at which it is published"),
			schema.Int("host_port", func(r row) *int64 { return &r.PublicPort }, "Port of the host, 0 when it is not published").As(schema.Integer),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.eachDockerContainer(ctx, t.Def(), q, func(id string, c *container.DockerContainer, _ *container.DockerAPI) error {
			for _, p := range c.Ports {
				rows = append(rows, &dockerPort{id, p})
			}
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// dockerRelease is the row of docker_version.
type dockerRelease struct {
	Version, GitCommit, GoVersion, Os, Arch, KernelVersion, BuildTime string
	APIVersion                                                        string `json:"ApiVersion"`
	MinAPIVersion                                                     string
}

func dockerVersion(env *Env) schema.Relation {
	type row = *dockerRelease
	t := &schema.Table[row]{
		Name: "docker_version",
		Doc:  "Version of Docker, one row",
		Columns: []schema.Column[row]{
			schema.Str("version", func(r row) *string { return &r.Version }, "Version").Collated("version"),
			schema.Str("api_version", func(r row) *string { return &r.APIVersion }, "Version of its API").Collated("version"),
			schema.Str("min_api_version", func(r row) *string { return &r.MinAPIVersion }, "Oldest version of the API that it speaks").Collated("version"),
			schema.Str("git_commit", func(r row) *string { return &r.GitCommit }, "Commit that it was built from"),
			schema.Str("go_version", func(r row) *string { return &r.GoVersion }, "Version of Go that it was built with"),
			schema.Str("os", func(r row) *string { return &r.Os }, "Operating system"),
			schema.Str("arch", func(r row) *string { return &r.Arch }, "Hardware architecture"),
			schema.Str("kernel_version", func(r row) *string { return &r.KernelVersion }, "Version of the kernel").Collated("version"),
			schema.Str("build_time", func(r row) *string { return &r.BuildTime }, "When it was built"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.askDocker(q, func(d *container.DockerAPI) error {
			r := new(dockerRelease)
			if err := d.Get(ctx, "/version", r); err != nil {
				return fmt.Errorf("ask Docker for its version: %w", err)
			}
			rows = append(rows, r)
			return nil
		})
		return rows, ctx.Err()
	}
	return t.Bind()
}
