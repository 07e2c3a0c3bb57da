package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const instanceFile = "instance_id"

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// readInstance returns the identity of the installation whose store is in dir, "" when it
// has none.
func readInstance(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, instanceFile))
	id := strings.TrimSpace(string(b))
	if err != nil || !uuidForm.MatchString(id) {
		return ""
	}
	return id
}

// makeInstance returns the identity of the installation, and gives it one when it has
// none: a random UUID (RFC 9562, version 4), kept next to the store. The caller holds the
// store's lock.
func makeInstance(dir string) (string, error) {
	if id := readInstance(dir); id != "" {
		return id, nil
	}
	id := newUUID()
	path := filepath.Join(dir, instanceFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return id, os.WriteFile(path, []byte(id+"\n"), 0o600)
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
