package table

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// dockerd serves what Docker answered on a real machine, on a socket of its own.
func dockerd(t *testing.T) *Env {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	file := func(w http.ResponseWriter, name string) {
		b, err := os.ReadFile(filepath.Join("../container/testdata", name))
		if err != nil {
			t.Error(err)
		}
		w.Write(b)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/containers/json" && r.URL.RawQuery == "all=1":
			b, err := os.ReadFile("../container/testdata/docker-containers.json")
			if err != nil {
				t.Error(err)
			}
			// The recorded containers publish nothing.
			ports := `"Ports":[{"IP":"0.0.0.0","PrivatePort":8080,"PublicPort":80,"Type":"tcp"},{"PrivatePort":9000,"Type":"udp"}]`
			w.Write(bytes.ReplaceAll(b, []byte(`"Ports":[]`), []byte(ports)))
		case strings.HasPrefix(r.URL.Path, "/containers/83de9c011ae3"):
			file(w, "docker-inspect.json")
		case r.URL.Path == "/images/json":
			fmt.Fprint(w, `[{"Id":"sha256:ab","Created":7,"Size":9,"RepoTags":["a:1","b:2"]},null,{"Id":"cd","RepoTags":null}]`)
		case r.URL.Path == "/version":
			fmt.Fprint(w, `{"Version":"20.10.24+dfsg1","ApiVersion":"1.41","MinAPIVersion":"1.12","GitCommit":"5d6db84","GoVersion":"go1.19.8","Os":"linux","Arch":"amd64","KernelVersion":"6.18.44","BuildTime":"2023-05-18T13:56:14.000000000+00:00"}`)
		case r.URL.Path == "/info":
			fmt.Fprint(w, `{"ID":"X","Containers":3,"CpuCfsPeriod":true,"OSType":"linux","NCPU":2,"MemTotal":5,"ServerVersion":"20.10"}`)
		default:
			http.NotFound(w, r)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return &Env{FS: procfs.At(""), DockerSocket: path}
}

// dockerCells returns some columns of a table's rows, each row on a line.
func dockerCells(t *testing.T, r schema.Relation, id string, columns ...string) []string {
	t.Helper()
	q := &schema.Query{Warn: func(s string) { t.Errorf("warning: %s", s) }}
	if id != "" {
		q.Constraints = []schema.Constraint{{Column: r.Def().Column("id"), Op: schema.Eq, Value: schema.TextValue(id)}}
	}
	var out []string
	for _, row := range scan(t, r, q) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, row[r.Def().Column(c)].Text())
		}
		out = append(out, strings.Join(cells, "|"))
	}
	return out
}

func TestDockerTables(t *testing.T) {
	env := dockerd(t)
	const id = "83de9c011ae32e0aff4331acb44b70df05ced6f16b4bf8bec599c32bdc9f113b"
	for _, tt := range []struct {
		name    string
		r       schema.Relation
		id      string
		columns []string
		want    []string
	}{
		{"container", dockerContainers(env), id, []string{"id", "name", "image", "image_id", "command", "created", "pid", "path", "privileged", "env_variables", "started_at"},
			[]string{id + "|/ct-docker|acme/shop:1.0|53bf4efeefc1d864f7364c0d4c3089ec742feca749fcadc2037bff0aa5be01d3|/entry|1795368355|17970|/entry|0|PATH=/bin|2026-11-22T17:25:55.80491988Z"}},
		{"by the beginning of its id", dockerContainers(env), "83DE9c", []string{"id", "name"}, []string{"83DE9c|/ct-docker"}},
		{"no id at all", dockerContainers(env), "'; DROP", []string{"id"}, nil},
		{"all", dockerContainers(env), "", []string{"name"}, []string{"/ct-docker-priv", "/ct-docker"}},
		{"labels", dockerContainerLabels(env), "83de", []string{"id", "key", "value"}, []string{"83de|app|shop", "83de|com.example.team|payments"}},
		{"mounts", dockerContainerMounts(env), "", []string{"id"}, nil},
		{"networks", dockerContainerNetworks(env), "83de", []string{"name", "gateway", "ip_address", "ip_prefix_len", "mac_address"},
			[]string{"bridge|172.17.0.1|172.17.0.2|16|02:42:ac:11:00:02"}},
		{"variables", dockerContainerEnvs(env), "83de", []string{"id", "key", "value"}, []string{"83de|PATH|/bin"}},
		{"ports", dockerContainerPorts(env), "83de", []string{"type", "port", "host_ip", "host_port"}, []string{"tcp|8080|0.0.0.0|80", "udp|9000||0"}},
		{"version", dockerVersion(env), "", []string{"version", "api_version", "min_api_version", "git_commit", "go_version", "os", "arch", "kernel_version", "build_time"},
			[]string{"20.10.24+dfsg1|1.41|1.12|5d6db84|go1.19.8|linux|amd64|6.18.44|2023-05-18T13:56:14.000000000+00:00"}},
		{"images", dockerImages(env), "", []string{"id", "created", "size_bytes", "tags"}, []string{"ab|7|9|a:1,b:2", "cd|0|0|"}},
		{"info", dockerInfo(env), "", []string{"id", "containers", "cpu_cfs_period", "cpu_cfs_quota", "os_type", "cpus", "memory", "server_version"},
			[]string{"X|3|1|0|linux|2|5|20.10"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, dockerCells(t, tt.r, tt.id, tt.columns...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Without Docker its tables are empty, without a word; where it cannot be asked the user is
// told.
func TestNoDocker(t *testing.T) {
	env := &Env{FS: procfs.At(""), DockerSocket: filepath.Join(t.TempDir(), "none")}
	for _, r := range dockerTables(env) {
		if got := dockerCells(t, r, "ab", "id"); r.Def().Column("id") >= 0 && got != nil {
			t.Errorf("%s: %v", r.Def().Name, got)
		}
	}
	refused := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(refused, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	warned := ""
	scan(t, dockerImages(&Env{DockerSocket: refused}), &schema.Query{Warn: func(s string) { warned = s }})
	if !strings.Contains(warned, refused) {
		t.Errorf("warning %q", warned)
	}
}

func TestPsTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "00:00:00", 61 * time.Second: "00:01:01", 25*time.Hour + 999*time.Millisecond: "1-01:00:00",
	} {
		if got := psTime(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
