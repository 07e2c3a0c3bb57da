package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Policy is a decision of a security module (SELinux, AppArmor, Landlock …) or of a
// seccomp filter that the kernel told the audit subsystem, or a change of their policy.
type Policy struct {
	Header
	Type        string // name of the record: AVC, MAC_STATUS, SECCOMP …
	TypeNumber  uint16 // AUDIT_* (linux/audit.h)
	Module      string // selinux, apparmor, seccomp, landlock …
	Operation   string // what was asked for: permissions, an operation, a system call
	Result      string // denied, allowed …; of seccomp its action
	Subject     string // context or profile of the process
	Object      string // context, label or name of what it acted upon
	ObjectClass string
	TargetPath  string
	Message     string // the whole text of the record
}

// Reset empties e for use again.
func (e *Policy) Reset() { *e = Policy{} }

var policyKind = kindOf[Policy](Kind{
	ID: KindPolicy, Table: "policy_events",
	Doc: "Decisions of security modules and seccomp filters, and changes of their policy",
	Columns: columns(
		schema.Str("type", func(e *Policy) *string { return &e.Type }, "Type of the record: AVC, MAC_STATUS, SECCOMP and so on"),
		schema.Int("type_number", func(e *Policy) *uint16 { return &e.TypeNumber }, "Number of the type", schema.Internal),
		schema.Str("module", func(e *Policy) *string { return &e.Module }, "Who decided: selinux, apparmor, seccomp, landlock and so on"),
		schema.Str("operation", func(e *Policy) *string { return &e.Operation }, "What was asked for: permissions, an operation, a system call"),
		schema.Str("result", func(e *Policy) *string { return &e.Result }, "denied, allowed or the like; of seccomp its action"),
		schema.Str("subject", func(e *Policy) *string { return &e.Subject }, "Context or profile of the process"),
		schema.Str("object", func(e *Policy) *string { return &e.Object }, "Context or label of what it acted upon"),
		schema.Str("object_class", func(e *Policy) *string { return &e.ObjectClass }, "Class of what it acted upon"),
		schema.Str("target_path", func(e *Policy) *string { return &e.TargetPath }, "File that it acted upon, as far as the record names it"),
		schema.Str("message", func(e *Policy) *string { return &e.Message }, "The whole text"),
	),
})
