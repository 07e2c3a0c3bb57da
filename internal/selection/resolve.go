package selection

import (
	"path/filepath"
	"strings"
)

// Resolve follows the symbolic links in a path, as far as it exists; what does not exist is
// left as it is.
func Resolve(name string) string {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		return to
	}
	dir, base := filepath.Split(strings.TrimRight(name, "/"))
	if dir == "" || base == "" || dir == name {
		return name
	}
	return filepath.Join(Resolve(filepath.Clean(dir)), base)
}
