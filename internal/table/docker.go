package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/container"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// defaultDocker is osquery's default of docker_socket, by the name that is no link.
const defaultDocker = "/run/docker.sock"

// dockerTables are osquery's tables over Docker's API.
func dockerTables(env *Env) []schema.Relation {
	return []schema.Relation{
		dockerContainers(env), dockerContainerProcesses(env), dockerContainerLabels(env),
		dockerContainerMounts(env), dockerContainerNetworks(env), dockerContainerEnvs(env), dockerContainerPorts(env),
		dockerImages(env), dockerInfo(env), dockerVersion(env),
	}
}

// ask calls fn with Docker's API. A host without Docker has no rows, which is no error; what
// else goes wrong the user is told.
func (env *Env) askDocker(q *schema.Query, fn func(*container.DockerAPI) error) {
	path := env.DockerSocket
	if path == "" {
		path = defaultDocker
	}
	d := container.NewDocker(filepath.Join("/", env.HostRoot, path))
	defer d.Close()
	if err := fn(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.Warning(err.Error())
	}
}

// dockerIDs are what column id is constrained to by = or IN, and whether it is. Docker takes
// the beginning of an id for the whole, and so do these tables; what no id begins with is
// left out.
func dockerIDs(def *schema.Def, q *schema.Query) (ids []string, asked bool) {
	values, asked := q.Equals(def.Column("id"))
	for _, v := range values {
		id := v.Text()
		hex := func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }
		if id != "" && len(id) <= 64 && !strings.ContainsFunc(id, hex) {
			ids = append(ids, id)
		}
	}
	return ids, asked
}

// shownID is an id as a query that asked for the beginnings in ids is shown it: as it asked,
// or its own row would be thrown away again. False when none of them fits.
func shownID(id string, ids []string, asked bool) (string, bool) {
	id = strings.TrimPrefix(id, "sha256:")
	if !asked {
		return id, true
	}
	for _, start := range ids {
		if len(start) <= len(id) && strings.EqualFold(id[:len(start)], start) {
			return start, true
		}
	}
	return "", false
}

// eachDockerContainer calls fn with each container that a query asks for, running or not.
func (env *Env) eachDockerContainer(ctx context.Context, def *schema.Def, q *schema.Query, fn func(id string, c *container.DockerContainer, d *container.DockerAPI) error) {
	ids, asked := dockerIDs(def, q)
	if asked && len(ids) == 0 {
		return
	}
	env.askDocker(q, func(d *container.DockerAPI) error {
		list, err := d.Containers(ctx, true)
		if err != nil {
			return err
		}
		for i := range list {
			if id, ok := shownID(list[i].ID, ids, asked); ok {
				if err := fn(id, &list[i], d); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// dockerContainer is a row of docker_containers.
type dockerContainer struct {
	id      string
	list    *container.DockerContainer
	details *container.DockerDetails // nil: they were not needed, or the container is gone
	ns      map[string]uint64
}

func dockerContainers(env *Env) schema.Relation {
	type row = *dockerContainer
	text := func(name string, of func(row) string, doc string, flags ...schema.Flag) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(r row) schema.Value { return schema.TextValue(of(r)) }, doc, flags...)
	}
	detail := func(name string, of func(*container.DockerDetails) string, doc string) schema.Column[row] {
		return text(name, func(r row) string {
			if r.details == nil {
				return ""
			}
			return of(r.details)
		}, doc)
	}
	truth := func(name string, of func(*container.DockerDetails) bool, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(r row) schema.Value {
			if r.details == nil {
				return schema.Null
			}
			return schema.BoolValue(of(r.details))
		}, doc)
	}
	namespace := func(name string) schema.Column[row] {
		return text(name+"_namespace", func(r row) string {
			if n := r.ns[name]; n != 0 {
				return strconv.FormatUint(n, 10)
			}
			return ""
		}, "Inode of its "+name+" namespace, empty when it does not run")
	}
	t := &schema.Table[row]{
		Name: "docker_containers",
		Doc:  "Docker's containers, running or not",
		Columns: []schema.Column[row]{
			text("id", func(r row) string { return r.id }, "Container ID; a query for its beginning finds it, too", schema.Index).Collated("nocase"),
			text("name", func(r row) string { return first(r.list.Names) }, "First name, with a slash before it", schema.Index),
			text("image", func(r row) string { return r.list.Image }, "Image that it was started from, as it was called"),
			text("image_id", func(r row) string { return strings.TrimPrefix(r.list.ImageID, "sha256:") }, "ID of the image").Collated("nocase"),
			text("command", func(r row) string { return r.list.Command }, "Command with arguments"),
			schema.Calc("created", schema.BigInt, func(r row) schema.Value { return schema.IntValue(r.list.Created) }, "When it was made, unix seconds"),
			text("state", func(r row) string { return r.list.State }, "State: created, restarting, running, removing, paused, exited, dead"),
			text("status", func(r row) string { return r.list.Status }, "Status in words, as Up 5 minutes"),
			schema.Calc("pid", schema.BigInt, func(r row) schema.Value {
				if r.details == nil {
					return schema.Null
				}
				return schema.IntValue(r.details.State.Pid)
			}, "Its first process, 0 when it does not run"),
			detail("path", func(d *container.DockerDetails) string { return d.Path }, "Program of its first process"),
			detail("config_entrypoint", func(d *container.DockerDetails) string { return strings.Join(d.Config.Entrypoint, ", ") }, "Entry point, with commas"),
			detail("started_at", func(d *container.DockerDetails) string { return d.State.StartedAt }, "When it was last started, RFC 3339"),
			detail("finished_at", func(d *container.DockerDetails) string { return d.State.FinishedAt }, "When it last ended, RFC 3339"),
			truth("privileged", func(d *container.DockerDetails) bool { return d.HostConfig.Privileged }, "1 for a privileged container"),
			detail("security_options", func(d *container.DockerDetails) string { return strings.Join(d.HostConfig.SecurityOpt, ", ") }, "Security options, with commas"),
			detail("env_variables", func(d *container.DockerDetails) string { return strings.Join(d.Config.Env, ", ") }, "Environment variables, with commas"),
			truth("readonly_rootfs", func(d *container.DockerDetails) bool { return d.HostConfig.ReadonlyRootfs }, "1 when its root file system is read only"),
			namespace("cgroup"), namespace("ipc"), namespace("mnt"), namespace("net"), namespace("pid"), namespace("user"), namespace("uts"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		def := t.Def()
		wants := uses(def, q, "pid", "path", "config_entrypoint", "started_at", "finished_at", "privileged", "security_options", "env_variables",
			"readonly_rootfs", "cgroup_namespace", "ipc_namespace", "mnt_namespace", "net_namespace", "pid_namespace", "user_namespace", "uts_namespace")
		var rows []row
		env.eachDockerContainer(ctx, def, q, func(id string, c *container.DockerContainer, d *container.DockerAPI) error {
			r := &dockerContainer{id: id, list: c}
			if wants {
				details, err := d.Details(ctx, c.ID)
				switch {
				case err == nil:
					r.details = details
					r.ns = env.namespaces(int(details.State.Pid))
				case ctx.Err() != nil:
					return err
				}
			}
			rows = append(rows, r)
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// namespaces are the inodes of a process's namespaces by name; nil when it is gone.
func (env *Env) namespaces(pid int) map[string]uint64 {
	if pid <= 0 {
		return nil
	}
	d, err := env.FS.Open()
	if err != nil {
		return nil
	}
	defer d.Close()
	p, err := d.Process(pid)
	if err != nil {
		return nil
	}
	var ns procfs.Namespaces
	if p.Namespaces(&ns) != nil {
		return nil
	}
	return map[string]uint64{"cgroup": ns.Cgroup, "ipc": ns.IPC, "mnt": ns.Mnt, "net": ns.Net, "pid": ns.PID, "user": ns.User, "uts": ns.UTS}
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// dockerPair is a row of docker_container_labels.
type dockerPair struct{ id, key, value string }

func dockerContainerLabels(env *Env) schema.Relation {
	type row = *dockerPair
	t := &schema.Table[row]{
		Name: "docker_container_labels",
		Doc:  "Labels of Docker's containers",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index).Collated("nocase"),
			schema.Str("key", func(r row) *string { return &r.key }, "Name of the label", schema.Index),
			schema.Str("value", func(r row) *string { return &r.value }, "Value of the label"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.eachDockerContainer(ctx, t.Def(), q, func(id string, c *container.DockerContainer, _ *container.DockerAPI) error {
			for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
				rows = append(rows, &dockerPair{id, key, c.Labels[key]})
			}
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// dockerMount is a row of docker_container_mounts.
type dockerMount struct {
	id string
	container.DockerMount
}

func dockerContainerMounts(env *Env) schema.Relation {
	type row = *dockerMount
	t := &schema.Table[row]{
		Name: "docker_container_mounts",
		Doc:  "What is mounted in Docker's containers",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index).Collated("nocase"),
			schema.Str("type", func(r row) *string { return &r.Type }, "Type: bind, volume, tmpfs"),
			schema.Str("name", func(r row) *string { return &r.Name }, "Name of the volume", schema.Index),
			schema.Str("source", func(r row) *string { return &r.Source }, "Path on the host"),
			schema.Str("destination", func(r row) *string { return &r.Destination }, "Path in the container"),
			schema.Str("driver", func(r row) *string { return &r.Driver }, "Driver that provides it"),
			schema.Str("mode", func(r row) *string { return &r.Mode }, "Options of the mount"),
			schema.Bool("rw", func(r row) *bool { return &r.RW }, "1 when it can be written to"),
			schema.Str("propagation", func(r row) *string { return &r.Propagation }, "Propagation of mounts"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.eachDockerContainer(ctx, t.Def(), q, func(id string, c *container.DockerContainer, _ *container.DockerAPI) error {
			for _, m := range c.Mounts {
				rows = append(rows, &dockerMount{id, m})
			}
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// dockerNetwork is a row of docker_container_networks.
type dockerNetwork struct {
	id, name string
	container.DockerNetwork
}

func dockerContainerNetworks(env *Env) schema.Relation {
	type row = *dockerNetwork
	t := &schema.Table[row]{
		Name: "docker_container_networks",
		Doc:  "Networks that Docker's containers are in",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index).Collated("nocase"),
			schema.Str("name", func(r row) *string { return &r.name }, "Name of the network", schema.Index),
			schema.Str("network_id", func(r row) *string { return &r.NetworkID }, "Network ID"),
			schema.Str("endpoint_id", func(r row) *string { return &r.EndpointID }, "Endpoint ID"),
			schema.Str("gateway", func(r row) *string { return &r.Gateway }, "Gateway"),
			schema.Str("ip_address", func(r row) *string { return &r.IPAddress }, "IPv4 address"),
			schema.Int("ip_prefix_len", func(r row) *int64 { return &r.IPPrefixLen }, "Bits of the IPv4 network").As(schema.Integer),
			schema.Str("ipv6_gateway", func(r row) *string { return &r.IPv6Gateway }, "IPv6 gateway"),
			schema.Str("ipv6_address", func(r row) *string { return &r.GlobalIPv6Address }, "IPv6 address"),
			schema.Int("ipv6_prefix_len", func(r row) *int64 { return &r.GlobalIPv6PrefixLen }, "Bits of the IPv6 network").As(schema.Integer),
			schema.Str("mac_address", func(r row) *string { return &r.MacAddress }, "MAC address"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.eachDockerContainer(ctx, t.Def(), q, func(id string, c *container.DockerContainer, _ *container.DockerAPI) error {
			networks := c.NetworkSettings.Networks
			for _, name := range slices.Sorted(maps.Keys(networks)) {
				rows = append(rows, &dockerNetwork{id, name, networks[name]})
			}
			return nil
		})
		return rows, ctx.Err()
	}
	return t
}

// dockerImage is a row of docker_images.
type dockerImage struct {
	ID            string `json:"Id"`
	Created, Size int64
	RepoTags      []string
}

func dockerImages(env *Env) schema.Relation {
	type row = *dockerImage
	t := &schema.Table[row]{
		Name: "docker_images",
		Doc:  "Docker's images",
		Columns: []schema.Column[row]{
			schema.Calc("id", schema.Text, func(r row) schema.Value { return schema.TextValue(strings.TrimPrefix(r.ID, "sha256:")) }, "Image ID"),
			schema.Int("created", func(r row) *int64 { return &r.Created }, "When it was made, unix seconds"),
			schema.Int("size_bytes", func(r row) *int64 { return &r.Size }, "Size in bytes"),
			schema.Calc("tags", schema.Text, func(r row) schema.Value { return schema.TextValue(strings.Join(r.RepoTags, ",")) }, "Names with tags, with commas"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.askDocker(q, func(d *container.DockerAPI) error { return d.Get(ctx, "/images/json", &rows) })
		return slices.DeleteFunc(rows, func(r row) bool { return r == nil }), ctx.Err()
	}
	return t.Bind()
}

// dockerSystem is the row of docker_info.
type dockerSystem struct {
	ID, Driver, LoggingDriver, CgroupDriver, KernelVersion, OperatingSystem, OSType, Architecture string
	HTTPProxy                                                                                     string `json:"HttpProxy"`
	HTTPSProxy                                                                                    string `json:"HttpsProxy"`
	NoProxy, Name, ServerVersion, DockerRootDir                                                   string

	Containers, ContainersRunning, ContainersPaused, ContainersStopped, Images, NCPU, MemTotal int64

	MemoryLimit, SwapLimit, KernelMemory, CPUShares, CPUSet, IPv4Forwarding, BridgeNfIptables, BridgeNfIP6tables, OomKillDisable bool
	CPUCfsPeriod                                                                                                                 bool `json:"CpuCfsPeriod"`
	CPUCfsQuota                                                                                                                  bool `json:"CpuCfsQuota"`
}

func dockerInfo(env *Env) schema.Relation {
	type row = *dockerSystem
	count := func(name string, at func(row) *int64, doc string) schema.Column[row] {
		return schema.Int(name, at, doc).As(schema.Integer)
	}
	t := &schema.Table[row]{
		Name: "docker_info",
		Doc:  "Docker itself, one row",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.ID }, "ID of this installation"),
			count("containers", func(r row) *int64 { return &r.Containers }, "Containers"),
			count("containers_running", func(r row) *int64 { return &r.ContainersRunning }, "Containers that run"),
			count("containers_paused", func(r row) *int64 { return &r.ContainersPaused }, "Containers that are paused"),
			count("containers_stopped", func(r row) *int64 { return &r.ContainersStopped }, "Containers that are stopped"),
			count("images", func(r row) *int64 { return &r.Images }, "Images"),
			schema.Str("storage_driver", func(r row) *string { return &r.Driver }, "Storage driver"),
			schema.Bool("memory_limit", func(r row) *bool { return &r.MemoryLimit }, "1 when memory can be limited"),
			schema.Bool("swap_limit", func(r row) *bool { return &r.SwapLimit }, "1 when swap can be limited"),
			schema.Bool("kernel_memory", func(r row) *bool { return &r.KernelMemory }, "1 when kernel memory can be limited"),
			schema.Bool("cpu_cfs_period", func(r row) *bool { return &r.CPUCfsPeriod }, "1 when the period of the CPU scheduler can be set"),
			schema.Bool("cpu_cfs_quota", func(r row) *bool { return &r.CPUCfsQuota }, "1 when the quota of the CPU scheduler can be set"),
			schema.Bool("cpu_shares", func(r row) *bool { return &r.CPUShares }, "1 when shares of CPU can be set"),
			schema.Bool("cpu_set", func(r row) *bool { return &r.CPUSet }, "1 when CPUs can be chosen"),
			schema.Bool("ipv4_forwarding", func(r row) *bool { return &r.IPv4Forwarding }, "1 when IPv4 is forwarded"),
			schema.Bool("bridge_nf_iptables", func(r row) *bool { return &r.BridgeNfIptables }, "1 when bridges pass through iptables"),
			schema.Bool("bridge_nf_ip6tables", func(r row) *bool { return &r.BridgeNfIP6tables }, "1 when bridges pass through ip6tables"),
			schema.Bool("oom_kill_disable", func(r row) *bool { return &r.OomKillDisable }, "1 when the killer of processes for want of memory can be kept off"),
			schema.Str("logging_driver", func(r row) *string { return &r.LoggingDriver }, "Logging driver"),
			schema.Str("cgroup_driver", func(r row) *string { return &r.CgroupDriver }, "Driver of cgroups"),
			schema.Str("kernel_version", func(r row) *string { return &r.KernelVersion }, "Version of the kernel").Collated("version"),
			schema.Str("os", func(r row) *string { return &r.OperatingSystem }, "Operating system"),
			schema.Str("os_type", func(r row) *string { return &r.OSType }, "Type of the operating system"),
			schema.Str("architecture", func(r row) *string { return &r.Architecture }, "Hardware architecture"),
			count("cpus", func(r row) *int64 { return &r.NCPU }, "CPUs"),
			schema.Int("memory", func(r row) *int64 { return &r.MemTotal }, "Memory in bytes"),
			schema.Str("http_proxy", func(r row) *string { return &r.HTTPProxy }, "Proxy for HTTP"),
			schema.Str("https_proxy", func(r row) *string { return &r.HTTPSProxy }, "Proxy for HTTPS"),
			schema.Str("no_proxy", func(r row) *string { return &r.NoProxy }, "Domains reached without a proxy, with commas"),
			schema.Str("name", func(r row) *string { return &r.Name }, "Name of the host"),
			schema.Str("server_version", func(r row) *string { return &r.ServerVersion }, "Version of Docker").Collated("version"),
			schema.Str("root_dir", func(r row) *string { return &r.DockerRootDir }, "Directory of Docker's data"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		env.askDocker(q, func(d *container.DockerAPI) error {
			r := new(dockerSystem)
			if err := d.Get(ctx, "/info", r); err != nil {
				return fmt.Errorf("describe Docker: %w", err)
			}
			rows = append(rows, r)
			return nil
		})
		return rows, ctx.Err()
	}
	return t.Bind()
}
