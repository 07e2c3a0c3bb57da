package table

import (
	"context"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// suidRoots are where suid_bin looks, and below; osquery's list with /var/tmp,
// /usr/libexec and /usr/lib, where today's programs with privileges lie.
var suidRoots = [...]string{
	"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/tmp",
	"/usr/lib", "/usr/lib64", "/usr/libexec", "/var/tmp",
}

const maxSUIDDepth = 32

// suidBin is a row of suid_bin.
type suidBin struct {
	place
	path, user, group, permissions string
}

func suidBinTable(env *Env) schema.Relation {
	type row = *suidBin
	t := newStreamed("suid_bin", "Programs that run as their owner or group, in the directories of programs, libraries and temporary files.", []schema.Column[row]{
		schema.Str("path", func(b row) *string { return &b.path }, "Path"),
		schema.Str("username", func(b row) *string { return &b.user }, "Owner, by number when it has no name"),
		schema.Str("groupname", func(b row) *string { return &b.group }, "Owning group, by number when it has no name"),
		schema.Str("permissions", func(b row) *string { return &b.permissions }, "S when it runs as its owner, G as its group"),
		pidColumn(func(b row) *place { return &b.place }),
	})
	t.scan = func(ctx context.Context, q *schema.Query, yield func(row) error) error {
		return env.eachScope(t.def, q, func(s *scope) error {
			users, groups, err := s.idNames()
			if err != nil {
				return err
			}
			seen := map[string]bool{} // /bin may be /usr/bin
			var walk func(dir string, fd, depth int) error
			walk = func(dir string, fd, depth int) error {
				var inner error
				_ = names(fd, func(name string) bool { // what may not be listed is not there
					if inner = ctx.Err(); inner != nil {
						return false
					}
					var st unix.Stat_t
					if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
						return true
					}
					switch file := path.Join(dir, name); {
					case st.Mode&unix.S_IFMT == unix.S_IFDIR && depth > 0:
						at, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
						if err != nil {
							return true
						}
						inner = walk(file, at, depth-1)
						unix.Close(at)
					case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
						b := &suidBin{place: s.place(), path: file, user: nameOr(users, st.Uid), group: nameOr(groups, st.Gid)}
						if st.Mode&unix.S_ISUID != 0 {
							b.permissions = "S"
						}
						if st.Mode&unix.S_ISGID != 0 {
							b.permissions += "G"
						}
						inner = yield(b)
					}
					return inner == nil
				})
				return inner
			}
			for _, dir := range suidRoots {
				fd, err := s.open(dir, true)
				if err != nil {
					continue
				}
				var st unix.Stat_t
				id := ""
				if unix.Fstat(fd, &st) == nil {
					id = strconv.FormatUint(st.Dev, 16) + ":" + strconv.FormatUint(st.Ino, 16)
				}
				if !seen[id] {
					seen[id] = true
					err = walk(dir, fd, maxSUIDDepth)
				}
				unix.Close(fd)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return t
}

// idNames are the names of users and groups by number, the first of each.
func (s *scope) idNames() (users, groups map[uint32]string, err error) {
	accounts, err := s.accounts()
	if err != nil {
		return nil, nil, err
	}
	list, err := s.groups()
	if err != nil {
		return nil, nil, err
	}
	users, groups = map[uint32]string{}, map[uint32]string{}
	for _, a := range accounts {
		if _, ok := users[a.uid]; !ok {
			users[a.uid] = a.name
		}
	}
	for _, g := range list {
		if _, ok := groups[g.gid]; !ok {
			groups[g.gid] = g.name
		}
	}
	return users, groups, nil
}

func nameOr(names map[uint32]string, id uint32) string {
	if name, ok := names[id]; ok {
		return name
	}
	return strconv.FormatUint(uint64(id), 10)
}
