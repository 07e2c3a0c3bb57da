package table

import (
	"fmt"
	"os"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// eachHome calls f for the accounts whose home directories a per-user table is to look
// into: those that uid is constrained to by = or IN, as a join with users does. Without
// such a constraint it is the current user alone, which is a warning, as in osquery.
// Accounts that share number and directory are one.
func (env *Env) eachHome(def *schema.Def, q *schema.Query, f func(s *scope, a *account) error) error {
	uid := def.Column("uid")
	keep := wanted(q, uid)
	if _, asked := q.Equals(uid); !asked {
		me := int64(os.Geteuid())
		keep = func(n int64) bool { return n == me }
		q.Warning(fmt.Sprintf("The %s table returns data based on the current user by default, consider JOINing against the users table", def.Name))
	}
	return env.eachScope(def, q, func(s *scope) error {
		accounts, err := s.accounts()
		if err != nil {
			return err
		}
		type home struct {
			uid uint32
			dir string
		}
		seen := map[home]bool{}
		for i := range accounts {
			a := &accounts[i]
			if h := (home{a.uid, a.home}); a.home == "" || seen[h] || !keep(int64(a.uid)) {
				continue
			} else {
				seen[h] = true
			}
			if err := f(s, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// uidColumn is the column uid of a per-user table.
func uidColumn[T any](of func(T) *uint32, flags ...schema.Flag) schema.Column[T] {
	return schema.Int("uid", of, "User whose home directory it is in", flags...)
}
