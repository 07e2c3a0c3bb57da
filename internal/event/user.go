package event

import "github.com/goshawk-project/goshawk/internal/schema"

// User is activity of users and of those who serve them, as privileged programs (PAM,
// login, su, sudo, sshd, systemd, shadow) and the kernel tell the audit subsystem: logins,
// authentication, sessions, accounts and groups changed, services started, anomalies,
// changes of the auditing itself.
//
// What programs say is their claim (Fidelity is user); who they are, the kernel knows.
type User struct {
	Header
	Type       string // name of the record: USER_LOGIN, ADD_USER, SERVICE_START …
	TypeNumber uint16 // AUDIT_* (linux/audit.h, libaudit.h)
	Operation  string // what was done: PAM:session_open, login, adding group …
	Account    string // who it was done to or for
	AccountUID uint32 // its number, Unset unknown
	Object     string // unit of a service, group, or device that it was done to
	Command    string // run by sudo, or typed
	Address    string
	Hostname   string
	Terminal   string
	Result     string // success, failed, or as the record has it
	Message    string // the whole text of the record
}

// Reset empties e for use again.
func (e *User) Reset() { *e = User{} }

var userKind = kindOf[User](Kind{
	ID: KindUser, Table: "session_events",
	Doc: "Logins, authentication, sessions, accounts, services and anomalies, as the audit subsystem tells them",
	Columns: columns(
		schema.Str("type", func(e *User) *string { return &e.Type }, "Type of the record: USER_LOGIN, USER_AUTH, ADD_USER, SERVICE_START and so on"),
		schema.Int("type_number", func(e *User) *uint16 { return &e.TypeNumber }, "Number of the type", schema.Internal),
		schema.Str("operation", func(e *User) *string { return &e.Operation }, "What was done"),
		schema.Str("account", func(e *User) *string { return &e.Account }, "Account it was done to or for"),
		schema.Int("account_uid", func(e *User) *uint32 { return &e.AccountUID }, "Number of that account", schema.OmitUnset),
		schema.Str("object", func(e *User) *string { return &e.Object }, "Unit, group or device it was done to"),
		schema.Str("command", func(e *User) *string { return &e.Command }, "Command that was run or typed"),
		schema.Str("address", func(e *User) *string { return &e.Address }, "Address that it came from"),
		schema.Str("hostname", func(e *User) *string { return &e.Hostname }, "Host that it came from"),
		schema.Str("terminal", func(e *User) *string { return &e.Terminal }, "Terminal, or the service that stands for one"),
		schema.Str("result", func(e *User) *string { return &e.Result }, "success or failed"),
		schema.Str("message", func(e *User) *string { return &e.Message }, "The whole text"),
	),
})
