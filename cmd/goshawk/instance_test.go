package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInstanceIsKept(t *testing.T) {
	dir := t.TempDir()
	check(t, "before", readInstance(dir), "")
	id, err := makeInstance(dir)
	if err != nil || !uuidForm.MatchString(id) {
		t.Fatalf("%q, %v", id, err)
	}
	again, err := makeInstance(dir)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "again", again, id)
	check(t, "read", readInstance(dir), id)
	st, err := os.Stat(filepath.Join(dir, instanceFile))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "mode", st.Mode().Perm(), os.FileMode(0o600))

	if err := os.WriteFile(filepath.Join(dir, instanceFile), []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if other, err := makeInstance(dir); err != nil || other == id || !uuidForm.MatchString(other) {
		t.Errorf("after damage: %q, %v", other, err)
	}
}
