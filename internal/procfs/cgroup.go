package procfs

import "errors"

// Cgroup2 returns where the cgroup v2 hierarchy is mounted (cgroups(7)).
func (fs FS) Cgroup2() (string, error) {
	mounts, err := fs.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.Type == "cgroup2" {
			return m.Path, nil
		}
	}
	return "", errors.New("find cgroup2: not mounted; mount -t cgroup2 none /sys/fs/cgroup")
}
