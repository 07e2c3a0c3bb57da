package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// entryScript is what a container of the tests runs: the work of workScript once, then a
// program each second, until SIGTERM, on which it ends with status 7.
const entryScript = `#!/bin/sh
trap 'exit 7' TERM
/work "$1" "$2"
while :; do
	/bin/true "$1"
	sleep 1 &
	wait $!
done
`

// workScript does one thing of each kind, marked with a token, or with a port: a program of
// the image, one that is not, a connection that nobody takes, a question that nobody answers.
const workScript = `#!/bin/sh
ip link set lo up 2>/dev/null # LXC leaves it down
/bin/true "$1"
cp /bin/busybox "/tmp/busybox-$1" && "/tmp/busybox-$1" true "$1"
nc -w 1 127.0.0.1 "$2" </dev/null
echo "$1" >"/var/$1"
timeout -s KILL 1 nslookup "$1.test" 127.0.0.1
rm "/tmp/busybox-$1"
exit 0
`

// makeRootfs puts BusyBox and the scripts into a directory.
func makeRootfs(t *testing.T, dir string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: apt-get install busybox-static")
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var/run"} {
		mustDo(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	mustDo(t, os.Chmod(dir, 0o755))
	mustDo(t, os.Chmod(filepath.Join(dir, "tmp"), 0o1777))
	program, err := os.ReadFile(busybox)
	mustDo(t, err)
	for name, content := range map[string]string{
		"bin/busybox": string(program), "entry": entryScript, "work": workScript,
	} {
		mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755))
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nshop:x:4242:4242::/:/bin/sh\n", "etc/group": "root:x:0:\n",
		"etc/os-release": "ID=shop\nNAME=Shop\nVERSION_ID=1.0\n",
	} {
		mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			mustDo(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
		}
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeImage writes an image of one layer, as docker load, podman load and ctr image import
// take it: an OCI layout with Docker's manifest.json beside it. It returns the image's digest.
func makeImage(t *testing.T, file, ref, rootfs string, command ...string) (digest string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	mustDo(t, w.AddFS(os.DirFS(rootfs)))
	mustDo(t, w.Close())

	blobs := map[string][]byte{}
	put := func(b []byte) (digest string, size int) {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+name] = b
		return name, len(b)
	}
	object := func(v any) []byte {
		b, err := json.Marshal(v)
		mustDo(t, err)
		return b
	}
	type m = map[string]any
	layerDigest, layerSize := put(layer.Bytes())
	config, configSize := put(object(m{
		"architecture": runtime.GOARCH, "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config": m{"Env": []string{"PATH=/bin"}, "Cmd": command, "Labels": m{"com.example.team": "payments"}},
		"rootfs": m{"type": "layers", "diff_ids": []string{"sha256:" + layerDigest}},
	}))
	manifest, manifestSize := put(object(m{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": m{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + config, "size": configSize},
		"layers": []m{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + layerDigest, "size": layerSize}},
	}))
	blobs["oci-layout"] = object(m{"imageLayoutVersion": "1.0.0"})
	blobs["index.json"] = object(m{"schemaVersion": 2, "manifests": []m{{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + manifest, "size": manifestSize,
		"annotations": m{"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref[strings.LastIndexByte(ref, ':')+1:]},
	}}})
	blobs["manifest.json"] = object([]m{{"Config": "blobs/sha256/" + config, "RepoTags": []string{ref}, "Layers": []string{"blobs/sha256/" + layerDigest}}})

	f, err := os.Create(file)
	mustDo(t, err)
	defer f.Close()
	w = tar.NewWriter(f)
	for name, b := range blobs {
		mustDo(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}))
		_, err := w.Write(b)
		mustDo(t, err)
	}
	mustDo(t, w.Close())
	mustDo(t, f.Close())
	return "sha256:" + manifest
}

func sha256Of(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
