package table

import (
	"slices"
	"strings"
)

// Flag is a flag as osquery_flags shows it.
type Flag struct {
	Name        string
	Type        string // bool, string, int32, uint32, uint64: gflags' names
	Description string // one phrase, no full stop
	Default     string
	Value       string
	ShellOnly   bool

	// Alias names the flag whose value this one has, being an older name of it.
	Alias string
	// CommandLine flags cannot be set by a configuration's options: osquery warns and
	// ignores them there.
	CommandLine bool
	// Hidden flags are not in osquery's help.
	Hidden bool
}

// KnownFlag returns osquery's flag of that name, with its default as value. Goshawk accepts
// every known flag, for configurations in the field set them, whether or not it heeds it.
func KnownFlag(name string) (Flag, bool) {
	for _, f := range knownFlags {
		if f.Name == name {
			f.Value = f.Default
			return f, true
		}
	}
	return Flag{}, false
}

// MergeFlags returns all known flags, and those of set that are not known, by name. A flag
// in set gives its value, and its default where it has one, to the known flag of the same
// name and to that flag's aliases.
func MergeFlags(set []Flag) []Flag {
	byName := make(map[string]Flag, len(set))
	for _, f := range set {
		byName[f.Name] = f
	}
	out := make([]Flag, 0, len(knownFlags)+len(set))
	for _, f := range knownFlags {
		f.Value = f.Default
		from := f.Name
		if f.Alias != "" {
			from = f.Alias
		}
		if s, ok := byName[from]; ok {
			f.Value = s.Value
			if s.Default != "" {
				f.Default = s.Default
			}
		}
		out = append(out, f)
	}
	for _, f := range set {
		if _, known := KnownFlag(f.Name); !known {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b Flag) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// knownFlags are the flags of osquery 5.23.1 on Linux that fleets set or read, with their
// defaults; osquery/docs/wiki/installation/cli-flags.md and the flags' definitions.
var knownFlags = []Flag{
	// Linux audit.
	{Name: "disable_audit", Type: "bool", Default: "true", Description: "Do not consume the audit netlink socket"},
	{Name: "audit_allow_config", Type: "bool", Default: "false", Description: "Allow changing the audit state of the kernel: rules, status and receiver"},
	{Name: "audit_persist", Type: "bool", Default: "true", Description: "Take the audit socket again when another daemon took it"},
	{Name: "audit_force_reconfigure", Type: "bool", Default: "false", Description: "Replace all audit rules at the start"},
	{Name: "audit_force_unconfigure", Type: "bool", Default: "false", Description: "Remove all audit rules at the end"},
	{Name: "audit_backlog_limit", Type: "int32", Default: "4096", Description: "Audit records that the kernel keeps in its queue"},
	{Name: "audit_backlog_wait_time", Type: "int32", Default: "0", Description: "How long a process waits when the audit queue is full"},
	{Name: "audit_allow_process_events", Type: "bool", Default: "true", Description: "Record programs started"},
	{Name: "audit_allow_fork_process_events", Type: "bool", Default: "false", Description: "Record fork, vfork and clone"},
	{Name: "audit_allow_kill_process_events", Type: "bool", Default: "false", Description: "Record kill, tkill and tgkill"},
	{Name: "audit_allow_sockets", Type: "bool", Default: "false", Description: "Record bind and connect"},
	{Name: "audit_allow_accept_socket_events", Type: "bool", Default: "true", Description: "Record accept and accept4 when sockets are recorded"},
	{Name: "audit_allow_null_accept_socket_events", Type: "bool", Default: "false", Description: "Record accepts without a waiting client"},
	{Name: "audit_allow_failed_socket_events", Type: "bool", Default: "false", Description: "Record socket calls that failed"},
	{Name: "audit_allow_unix", Type: "bool", Default: "false", Description: "Record unix domain sockets", Hidden: true},
	{Name: "audit_allow_user_events", Type: "bool", Default: "true", Description: "Record what login programs report"},
	{Name: "audit_allow_fim_events", Type: "bool", Default: "false", Description: "Record file accesses"},
	{Name: "audit_allow_selinux_events", Type: "bool", Default: "false", Description: "Record what SELinux reports"},
	{Name: "audit_allow_apparmor_events", Type: "bool", Default: "false", Description: "Record what AppArmor reports"},
	{Name: "audit_allow_seccomp_events", Type: "bool", Default: "false", Description: "Record what seccomp reports"},
	{Name: "audit_debug", Type: "bool", Default: "false", Description: "Print audit records", Hidden: true},
	{Name: "audit_fim_debug", Type: "bool", Default: "false", Description: "Print file accesses", Hidden: true},
	{Name: "audit_fim_show_accesses", Type: "bool", Default: "false", Description: "Show file reads too", Hidden: true},
	{Name: "audit_show_partial_fim_events", Type: "bool", Default: "false", Description: "Show file accesses of processes not fully known", Hidden: true},
	{Name: "audit_show_untracked_res_warnings", Type: "bool", Default: "false", Description: "Warn of descriptors not known", Hidden: true},

	// BPF, in osquery up to 5.23.
	{Name: "enable_bpf_events", Type: "bool", Default: "false", Description: "Record processes and sockets through BPF"},
	{Name: "bpf_perf_event_array_exp", Type: "uint64", Default: "10", Description: "Size of the BPF event buffer as a power of two"},
	{Name: "bpf_buffer_storage_size", Type: "uint64", Default: "512", Description: "Slots for strings in the BPF buffers"},
	{Name: "bpf_state_tracker_reset_time", Type: "uint64", Default: "10", Description: "Minutes between readings of /proc", Hidden: true},
	{Name: "experiment_list", Type: "string", Default: "", Description: "Experiments to turn on"},
	{Name: "experiments_linuxevents_perf_output_size", Type: "uint64", Default: "12", Description: "Size of the experiment's BPF buffer", CommandLine: true},
	{Name: "experiments_linuxevents_circular_buffer_size", Type: "uint64", Default: "1000", Description: "Rows that the experiment keeps", CommandLine: true},

	// Events.
	{Name: "disable_events", Type: "bool", Default: "false", Description: "Do not record events"},
	{Name: "events_expiry", Type: "uint64", Default: "3600", Description: "Seconds to keep events"},
	{Name: "events_max", Type: "uint64", Default: "50000", Description: "Batches of events to keep for each subscriber"},
	{Name: "events_optimize", Type: "bool", Default: "true", Description: "Give a scheduled query only the events that it has not seen"},
	{Name: "events_enforce_denylist", Type: "bool", Default: "false", Description: "Apply the denylist to queries of events too", Hidden: true},
	{Name: "enable_file_events", Type: "bool", Default: "false", Description: "Record changes of the files named in file_paths"},
	{Name: "enable_syslog", Type: "bool", Default: "false", Description: "Record syslog messages"},
	{Name: "syslog_pipe_path", Type: "string", Default: "/var/osquery/syslog_pipe", Description: "Pipe to which rsyslog writes"},
	{Name: "syslog_rate_limit", Type: "uint64", Default: "100", Description: "Syslog lines read in one go"},
	{Name: "syslog_events_expiry", Type: "uint64", Default: "2592000", Description: "Seconds to keep syslog messages"},
	{Name: "syslog_events_max", Type: "uint64", Default: "100000", Description: "Batches of syslog messages to keep"},
	{Name: "hardware_disabled_types", Type: "string", Default: "partition", Description: "Device types not recorded, separated by a comma"},
	{Name: "yara_delay", Type: "uint32", Default: "50", Description: "Milliseconds between YARA scans"},
	{Name: "yara_sigurl_authenticate", Type: "bool", Default: "false", Description: "Authenticate when fetching YARA rules"},
	{Name: "enable_yara_string", Type: "bool", Default: "false", Description: "Show the strings that YARA matched", Hidden: true},
	{Name: "yara_malloc_trim", Type: "bool", Default: "true", Description: "Give memory back after a YARA scan", Hidden: true},
	{Name: "hash_cache_max", Type: "uint32", Default: "500", Description: "Files whose hashes are remembered"},
	{Name: "hash_delay", Type: "uint32", Default: "20", Description: "Milliseconds between files when hashing a directory", Hidden: true},
	{Name: "disable_hash_cache", Type: "bool", Default: "false", Description: "Do not remember hashes"},
	{Name: "read_max", Type: "uint64", Default: "52428800", Description: "Size in bytes of the largest file read"},

	// Tables.
	{Name: "enable_tables", Type: "string", Default: "", Description: "Tables to offer, separated by a comma; empty is all", CommandLine: true},
	{Name: "disable_tables", Type: "string", Default: "", Description: "Tables not to offer, separated by a comma", CommandLine: true},
	{Name: "enable_foreign", Type: "bool", Default: "false", Description: "Offer other platforms' tables, empty"},
	{Name: "enable_numeric_monitoring", Type: "bool", Default: "false", Description: "Record measurements of the agent"},
	{Name: "numeric_monitoring_plugins", Type: "string", Default: "filesystem", Description: "Where measurements go"},
	{Name: "numeric_monitoring_pre_aggregation_time", Type: "uint64", Default: "60", Description: "Seconds over which measurements are summed up"},
	{Name: "numeric_monitoring_filesystem_path", Type: "string", Default: "/var/log/osquery/numeric_monitoring.log", Description: "File of measurements"},
	{Name: "enable_extensions_watchdog", Type: "bool", Default: "false", Description: "Watch extensions too", CommandLine: true},
	{Name: "enable_watchdog_debug", Type: "bool", Default: "false", Description: "Report what the watchdog sees", CommandLine: true},

	// Watchdog.
	{Name: "disable_watchdog", Type: "bool", Default: "false", Description: "Run without the watchdog", CommandLine: true},
	{Name: "watchdog_level", Type: "int32", Default: "0", Description: "Limits: 0 normal, 1 restrictive, -1 none", CommandLine: true},
	{Name: "watchdog_memory_limit", Type: "uint64", Default: "0", Description: "Memory limit in MB, 0 for that of the level", CommandLine: true},
	{Name: "watchdog_utilization_limit", Type: "uint64", Default: "0", Description: "Limit of CPU use in percent, 0 for that of the level", CommandLine: true},
	{Name: "watchdog_latency_limit", Type: "uint64", Default: "0", Description: "Seconds above the CPU limit, 0 for those of the level", CommandLine: true},
	{Name: "watchdog_delay", Type: "uint64", Default: "60", Description: "Seconds before limits apply", CommandLine: true},
	{Name: "watchdog_max_delay", Type: "uint64", Default: "600", Description: "Longest wait before a restart in seconds", CommandLine: true, Hidden: true},
	{Name: "watchdog_forced_shutdown_delay", Type: "uint64", Default: "4", Description: "Seconds between the request to stop and the kill", CommandLine: true},
	{Name: "malloc_trim_threshold", Type: "uint64", Default: "200", Description: "Memory in MB above which memory is given back"},

	// Logger.
	{Name: "logger_plugin", Type: "string", Default: "filesystem", Description: "Where results go, separated by a comma", CommandLine: true},
	{Name: "logger_path", Type: "string", Default: "/var/log/osquery/", Description: "Directory of log files"},
	{Name: "logger_mode", Type: "string", Default: "0640", Description: "Permissions of log files", CommandLine: true},
	{Name: "logger_rotate", Type: "bool", Default: "false", Description: "Rotate log files"},
	{Name: "logger_rotate_size", Type: "uint64", Default: "26214400", Description: "Size in bytes at which a log file is rotated"},
	{Name: "logger_rotate_max_files", Type: "uint64", Default: "25", Description: "Rotated log files to keep"},
	{Name: "logger_event_type", Type: "bool", Default: "true", Description: "Log a line for each row"},
	{Name: "logger_snapshot_event_type", Type: "bool", Default: "false", Description: "Log a line for each row of a snapshot"},
	{Name: "logger_numerics", Type: "bool", Default: "false", Description: "Log numbers as numbers"},
	{Name: "log_numerics_as_numbers", Type: "bool", Default: "false", Description: "Log numbers as numbers", Alias: "logger_numerics"},
	{Name: "logger_min_status", Type: "int32", Default: "0", Description: "Least severity logged"},
	{Name: "logger_min_stderr", Type: "int32", Default: "0", Description: "Least severity printed on standard error"},
	{Name: "logger_stderr", Type: "bool", Default: "true", Description: "Print status lines on standard error", CommandLine: true},
	{Name: "disable_logging", Type: "bool", Default: "false", Description: "Log nothing"},
	{Name: "logger_status_sync", Type: "bool", Default: "false", Description: "Log status lines at once", Hidden: true},
	{Name: "logger_tls_endpoint", Type: "string", Default: "", Description: "Path of the logging endpoint"},
	{Name: "logger_tls_period", Type: "uint64", Default: "4", Description: "Seconds between log posts"},
	{Name: "logger_tls_max_lines", Type: "uint64", Default: "1024", Description: "Lines in one log post"},
	{Name: "logger_tls_max_linesize", Type: "uint64", Default: "1048576", Description: "Size in bytes of the longest line posted"},
	{Name: "logger_tls_max", Type: "uint64", Default: "1048576", Description: "Size in bytes of the longest line posted", Alias: "logger_tls_max_linesize"},
	{Name: "logger_tls_compress", Type: "bool", Default: "false", Description: "Compress log posts"},
	{Name: "logger_tls_backoff_max", Type: "uint64", Default: "3600", Description: "Longest wait after failed log posts in seconds"},
	{Name: "tls_disable_status_log", Type: "bool", Default: "false", Description: "Do not post status lines"},
	{Name: "buffered_log_max", Type: "uint64", Default: "1000000", Description: "Lines kept until they can be posted"},
	{Name: "logger_syslog_facility", Type: "int32", Default: "19", Description: "Syslog facility of results"},
	{Name: "logger_syslog_prepend_cee", Type: "bool", Default: "false", Description: "Begin syslog messages with @cee:"},
	{Name: "logger_kafka_brokers", Type: "string", Default: "localhost", Description: "Kafka brokers, separated by a comma"},
	{Name: "logger_kafka_topic", Type: "string", Default: "", Description: "Kafka topic"},
	{Name: "logger_kafka_acks", Type: "string", Default: "all", Description: "Acknowledgements that Kafka must give"},
	{Name: "logger_kafka_compression", Type: "string", Default: "none", Description: "Compression of Kafka messages"},

	// TLS and enrolment.
	{Name: "tls_hostname", Type: "string", Default: "", Description: "Server as host:port", CommandLine: true},
	{Name: "tls_server_certs", Type: "string", Default: "/opt/osquery/share/osquery/certs/certs.pem", Description: "File of trusted certificates", CommandLine: true},
	{Name: "tls_client_cert", Type: "string", Default: "", Description: "File of the client certificate", CommandLine: true},
	{Name: "tls_client_key", Type: "string", Default: "", Description: "File of the client key", CommandLine: true},
	{Name: "tls_session_reuse", Type: "bool", Default: "true", Description: "Keep connections open", CommandLine: true},
	{Name: "tls_session_timeout", Type: "uint32", Default: "3600", Description: "Longest life of a connection in seconds", CommandLine: true},
	{Name: "tls_accept_gzip", Type: "bool", Default: "false", Description: "Accept compressed answers", CommandLine: true},
	{Name: "proxy_hostname", Type: "string", Default: "", Description: "Proxy as host:port", CommandLine: true},
	{Name: "dns_resolver_refresh_interval", Type: "uint64", Default: "60", Description: "Seconds between name lookups"},
	{Name: "enroll_tls_endpoint", Type: "string", Default: "", Description: "Path of the enrolment endpoint", CommandLine: true},
	{Name: "enroll_secret_path", Type: "string", Default: "", Description: "File of the enrolment secret", CommandLine: true},
	{Name: "enroll_secret_env", Type: "string", Default: "", Description: "Environment variable of the enrolment secret", CommandLine: true},
	{Name: "enroll_always", Type: "bool", Default: "false", Description: "Enrol at every start", CommandLine: true},
	{Name: "disable_enrollment", Type: "bool", Default: "false", Description: "Do not enrol", CommandLine: true},
	{Name: "disable_reenrollment", Type: "bool", Default: "false", Description: "Do not enrol again when the server asks", CommandLine: true},
	{Name: "tls_enroll_max_attempts", Type: "uint64", Default: "12", Description: "Attempts to enrol, 0 for ever", CommandLine: true},
	{Name: "tls_enroll_max_interval", Type: "uint64", Default: "600", Description: "Longest wait between attempts to enrol in seconds", CommandLine: true},
	{Name: "tls_enroll_override", Type: "string", Default: "enroll_secret", Description: "Key of the enrolment secret in the request", Hidden: true},
	{Name: "tls_secret_always", Type: "bool", Default: "false", Description: "Send the enrolment secret with every request", Hidden: true},
	{Name: "tls_node_api", Type: "bool", Default: "false", Description: "Use REST paths with the node key", Hidden: true},
	{Name: "tls_dump", Type: "bool", Default: "false", Description: "Print requests and answers", Hidden: true},
	{Name: "tls_allow_unsafe", Type: "bool", Default: "false", Description: "Do not check the server's certificate", Hidden: true},
	{Name: "host_identifier", Type: "string", Default: "hostname", Description: "How the host is named: hostname, uuid, instance, ephemeral or specified"},
	{Name: "specified_identifier", Type: "string", Default: "", Description: "Name of the host when host_identifier is specified"},

	// Configuration, schedule and decorators.
	{Name: "config_plugin", Type: "string", Default: "filesystem", Description: "Where the configuration comes from", CommandLine: true},
	{Name: "config_path", Type: "string", Default: "/etc/osquery/osquery.conf", Description: "Configuration file", CommandLine: true},
	{Name: "config_refresh", Type: "uint64", Default: "0", Description: "Seconds between readings of the configuration, 0 for never", CommandLine: true},
	{Name: "config_tls_refresh", Type: "uint64", Default: "0", Description: "Seconds between readings of the configuration, 0 for never", Alias: "config_refresh", CommandLine: true},
	{Name: "config_accelerated_refresh", Type: "uint64", Default: "300", Description: "Seconds to the next reading after a failed one", CommandLine: true},
	{Name: "config_tls_endpoint", Type: "string", Default: "", Description: "Path of the configuration endpoint", CommandLine: true},
	{Name: "config_tls_max_attempts", Type: "uint64", Default: "3", Description: "Attempts to fetch the configuration", CommandLine: true},
	{Name: "config_enable_backup", Type: "bool", Default: "false", Description: "Keep the last good configuration", CommandLine: true},
	{Name: "config_check", Type: "bool", Default: "false", Description: "Check the configuration and exit", CommandLine: true},
	{Name: "config_dump", Type: "bool", Default: "false", Description: "Print the configuration and exit", CommandLine: true},
	{Name: "schedule_default_interval", Type: "uint64", Default: "3600", Description: "Seconds between runs of a query without an interval"},
	{Name: "schedule_splay_percent", Type: "uint64", Default: "10", Description: "Percent by which intervals are moved"},
	{Name: "schedule_timeout", Type: "uint64", Default: "0", Description: "Seconds until the schedule ends, 0 for never"},
	{Name: "schedule_max_drift", Type: "uint64", Default: "60", Description: "Seconds of delay that the schedule makes up for"},
	{Name: "schedule_reload", Type: "uint64", Default: "3600", Description: "Seconds between reloads of the database"},
	{Name: "schedule_reload_sql", Type: "bool", Default: "false", Description: "Reload the SQL engine too", Hidden: true},
	{Name: "schedule_epoch", Type: "uint64", Default: "0", Description: "Epoch of scheduled queries"},
	{Name: "schedule_lognames", Type: "bool", Default: "false", Description: "Log the names of scheduled queries as they run"},
	{Name: "pack_delimiter", Type: "string", Default: "_", Description: "Text between the parts of a pack query's name"},
	{Name: "pack_refresh_interval", Type: "uint64", Default: "3600", Description: "Seconds between discovery queries of packs"},
	{Name: "disable_decorators", Type: "bool", Default: "false", Description: "Do not decorate results"},
	{Name: "decorations_top_level", Type: "bool", Default: "false", Description: "Put decorations into the line itself"},
	{Name: "disable_caching", Type: "bool", Default: "false", Description: "Do not cache tables between queries"},
	{Name: "table_delay", Type: "uint64", Default: "0", Description: "Milliseconds to wait between tables"},

	// Distributed queries, carver, extensions and the rest.
	{Name: "disable_distributed", Type: "bool", Default: "true", Description: "Do not ask the server for queries"},
	{Name: "distributed_plugin", Type: "string", Default: "tls", Description: "Where distributed queries come from"},
	{Name: "distributed_interval", Type: "uint64", Default: "60", Description: "Seconds between requests for distributed queries"},
	{Name: "distributed_tls_read_endpoint", Type: "string", Default: "", Description: "Path of the endpoint that gives distributed queries"},
	{Name: "distributed_tls_write_endpoint", Type: "string", Default: "", Description: "Path of the endpoint that takes their results"},
	{Name: "distributed_tls_max_attempts", Type: "uint64", Default: "3", Description: "Attempts of a distributed request"},
	{Name: "distributed_denylist_duration", Type: "uint64", Default: "86400", Description: "Seconds for which a failed distributed query is refused"},
	{Name: "distributed_loginfo", Type: "bool", Default: "false", Description: "Log distributed queries as they run"},
	{Name: "disable_carver", Type: "bool", Default: "true", Description: "Do not carve files", CommandLine: true},
	{Name: "carver_disable_function", Type: "bool", Default: "true", Description: "Do not offer the function carve", CommandLine: true},
	{Name: "carver_start_endpoint", Type: "string", Default: "", Description: "Path of the endpoint that begins a carve", CommandLine: true},
	{Name: "carver_continue_endpoint", Type: "string", Default: "", Description: "Path of the endpoint that takes a carve's blocks", CommandLine: true},
	{Name: "carver_block_size", Type: "uint32", Default: "8192", Description: "Size in bytes of a carve's blocks", CommandLine: true},
	{Name: "carver_compression", Type: "bool", Default: "false", Description: "Compress carves", CommandLine: true},
	{Name: "carver_expiry", Type: "uint32", Default: "86400", Description: "Seconds to keep carves", CommandLine: true},
	{Name: "disable_extensions", Type: "bool", Default: "false", Description: "Do not offer the socket for extensions", CommandLine: true},
	{Name: "extensions_socket", Type: "string", Default: "/var/osquery/osquery.em", Description: "Socket for extensions", CommandLine: true},
	{Name: "extensions_autoload", Type: "string", Default: "/etc/osquery/extensions.load", Description: "File of extensions to start", CommandLine: true},
	{Name: "extensions_timeout", Type: "string", Default: "3", Description: "Seconds to wait for extensions", CommandLine: true},
	{Name: "extensions_interval", Type: "string", Default: "3", Description: "Seconds between looks at extensions", CommandLine: true},
	{Name: "extensions_require", Type: "string", Default: "", Description: "Extensions without which not to run", CommandLine: true},
	{Name: "extensions_default_index", Type: "bool", Default: "true", Description: "Treat all columns of extensions as indexes"},
	{Name: "thrift_timeout", Type: "uint32", Default: "300", Description: "Seconds to wait for an extension's answer"},
	{Name: "thrift_string_size_limit", Type: "int32", Default: "0", Description: "Longest string from an extension, 0 for no limit"},
	{Name: "allow_unsafe", Type: "bool", Default: "false", Description: "Run files with unsafe permissions", Hidden: true},
	{Name: "database_path", Type: "string", Default: "/var/osquery/osquery.db", Description: "Directory of the database", CommandLine: true},
	{Name: "disable_database", Type: "bool", Default: "false", Description: "Keep the database in memory"},
	{Name: "pidfile", Type: "string", Default: "/var/run/osqueryd.pidfile", Description: "File of the process ID", CommandLine: true},
	{Name: "force", Type: "bool", Default: "false", Description: "End a running agent first", CommandLine: true},
	{Name: "ephemeral", Type: "bool", Default: "false", Description: "Run beside another agent, with nothing kept"},
	{Name: "daemonize", Type: "bool", Default: "false", Description: "Run in the background", CommandLine: true},
	{Name: "alarm_timeout", Type: "uint64", Default: "15", Description: "Seconds to end in", CommandLine: true},
	{Name: "verbose", Type: "bool", Default: "false", Description: "Print more"},
	{Name: "docker_socket", Type: "string", Default: "/var/run/docker.sock", Description: "Docker's socket"},
	{Name: "lxd_socket", Type: "string", Default: "/var/lib/lxd/unix.socket", Description: "LXD's socket"},
	{Name: "keep_container_worker_open", Type: "bool", Default: "false", Description: "Keep the worker that looks into containers", CommandLine: true},
	{Name: "nullvalue", Type: "string", Default: "", Description: "Text for NULL"},
	{Name: "ignore_table_exceptions", Type: "bool", Default: "false", Description: "Go on after a table failed"},
}
