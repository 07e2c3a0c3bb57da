// Package table holds the snapshot tables (the present state of this host) and the
// osquery-named event tables. A table is a literal: names, types and flags of columns with
// a getter each, and a function that makes rows. It reads /proc and /sys through procfs
// only, knows no SQL, and owns no state beyond caches.
package table

import (
	"time"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// Env is what tables read from; cmd fills it, and leaves it alone once All was called.
// The zero value of each field but FS means what a one-shot query on this host needs.
type Env struct {
	FS procfs.FS
	// HostRoot is where the host's root directory is seen, "" for /.
	HostRoot string

	// InstanceID identifies the installation (osquery_info.instance_id).
	InstanceID string
	// HostUUID overrides the UUID found in the firmware or made from the machine ID.
	HostUUID string
	// Version overrides OsqueryVersion.
	Version string
	// StartTime is when the agent started; zero is unknown.
	StartTime time.Time
	// Watcher is the process that watches the agent; 0: nobody does.
	Watcher int
	// Config returns the SHA-1 of the configuration in force, in hexadecimal, and whether
	// it is valid. nil: there is no configuration.
	Config func() (hash string, valid bool)
	// Flags returns all flags with the values in force. nil: osquery_flags is empty.
	Flags func() []Flag
	// Schedule and Packs return the scheduled queries and the packs; nil: there are none.
	Schedule func() []ScheduledQuery
	Packs    func() []Pack
	// Extensions returns those that are registered, and the socket where they do that; nil: the
	// socket is not served.
	Extensions func() (socket string, list []Extension)
	// Carves returns the carves there are, and Carve begins one of the files that patterns
	// in osquery's language match; nil: there is no carver.
	Carves func() ([]Carve, error)
	Carve  func(patterns []string) (guid string, err error)
	// Tables returns the definitions of all tables, for osquery_registry. nil: All sets
	// it to list what All returns.
	Tables func() []*schema.Def

	// SQLite returns a table over a query of one SQLite file, its cells as text, blobs in
	// hexadecimal. nil: what is kept in SQLite files is left out, with a warning.
	SQLite func(query string, columns []string, path string) schema.Relation

	// DockerSocket is Docker's socket, below HostRoot; "" is /run/docker.sock.
	DockerSocket string

	// ReadMax is the size in bytes of the largest file that is hashed (osquery's flag
	// read_max); 0 is 50 MiB.
	ReadMax int64
}

// All returns every snapshot table, in the order in which `goshawk tables` lists them.
func All(env *Env) []schema.Relation {
	var all []schema.Relation
	all = append(all, processTables(env)...)
	all = append(all, hostTables(env)...)
	all = append(all, dockerTables(env)...)
	all = append(all, softwareTables(env)...)
	all = append(all, accessTables(env)...)
	if env.Tables == nil {
		defs := make([]*schema.Def, len(all))
		for i, r := range all {
			defs[i] = r.Def()
		}
		env.Tables = func() []*schema.Def { return defs }
	}
	return all
}

// hostTables returns the tables about the host itself and about this agent.
func hostTables(env *Env) []schema.Relation {
	return []schema.Relation{
		usersTable(env),
		groupsTable(env),
		userGroupsTable(env),
		loggedInUsersTable(env),
		uptimeTable(env),
		timeTable(env),
		osVersionTable(env),
		systemInfoTable(env),
		kernelInfoTable(env),
		kernelModulesTable(env),
		systemControlsTable(env),
		kernelKeysTable(env),
		sharedMemoryTable(env),
		ulimitInfoTable(env),
		apparmorProfilesTable(env),
		selinuxSettingsTable(env),
		securebootTable(env),
		cpuInfoTable(env),
		cpuTimeTable(env),
		memoryInfoTable(env),
		loadAverageTable(env),
		pciDevicesTable(env),
		usbDevicesTable(env),
		platformInfoTable(env),
		mountsTable(env),
		blockDevicesTable(env),
		diskEncryptionTable(env),
		interfaceAddressesTable(env),
		interfaceDetailsTable(env),
		interfaceIPv6Table(env),
		routesTable(env),
		arpCacheTable(env),
		etcHostsTable(env),
		etcServicesTable(env),
		etcProtocolsTable(env),
		iptablesTable(env),
		dnsResolversTable(env),
		certificatesTable(env),
		fileTable(env),
		hashTable(env),
		extendedAttributesTable(env),
		osqueryInfoTable(env),
		osqueryFlagsTable(env),
		osqueryRegistryTable(env),
		osqueryExtensionsTable(env),
		osqueryScheduleTable(env),
		osqueryPacksTable(env),
		carvesTable(env),
	}
}

// softwareTables returns the tables about what is installed.
func softwareTables(env *Env) []schema.Relation {
	return []schema.Relation{
		debPackagesTable(env),
		debPackageFilesTable(env),
		rpmPackagesTable(env),
		rpmPackageFilesTable(env),
		portagePackagesTable(env),
		aptSourcesTable(env),
		yumSourcesTable(env),
		pythonPackagesTable(env),
		npmPackagesTable(env),
		chromeExtensionsTable(env),
		chromeContentScriptsTable(env),
		firefoxAddonsTable(env),
		vscodeExtensionsTable(env),
		jetbrainsPluginsTable(env),
	}
}

// accessTables returns the tables about who may do what here, and what runs by itself.
func accessTables(env *Env) []schema.Relation {
	return []schema.Relation{
		crontabTable(env),
		systemdUnitsTable(env),
		startupItemsTable(env),
		authorizedKeysTable(env),
		userSSHKeysTable(env),
		knownHostsTable(env),
		sshConfigsTable(env),
		shellHistoryTable(env),
		lastTable(env),
		suidBinTable(env),
		shadowTable(env),
		sudoersTable(env),
	}
}
