package rule

import (
	"embed"
	"io/fs"
)

//go:embed rules/*.yml
var builtin embed.FS

// Builtin is the tree of the rules that come with goshawk.
func Builtin() fs.FS {
	tree, err := fs.Sub(builtin, "rules")
	if err != nil {
		panic("BUG: the embedded rules have no directory")
	}
	return tree
}
