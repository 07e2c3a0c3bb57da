package main

import (
	"os/user"
	"strconv"
	"time"
)

// userNames remembers the names of users. It belongs to one goroutine.
type userNames struct {
	known map[uint32]string
	since time.Time
}

const (
	userNamesAge = time.Minute
	maxUserNames = 10_000
)

// name returns the name of a user, "" when it has none.
func (u *userNames) name(uid uint32) string {
	if now := time.Now(); now.Sub(u.since) > userNamesAge || len(u.known) > maxUserNames {
		u.known, u.since = make(map[uint32]string), now
	}
	if name, ok := u.known[uid]; ok {
		return name
	}
	name := ""
	if found, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		name = found.Username
	}
	u.known[uid] = name
	return name
}
