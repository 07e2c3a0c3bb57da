package table

import (
	"context"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func cpuInfoTable(env *Env) schema.Relation {
	type row = *procfs.Package
	text := func(name string, of func(row) string, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(p row) schema.Value { return schema.TextValue(of(p)) }, doc)
	}
	t := &schema.Table[row]{
		Name: "cpu_info",
		Doc:  "Processors, one row for each socket, as the kernel tells of them.",
		Columns: []schema.Column[row]{
			schema.Str("device_id", func(p row) *string { return &p.ID }, "Number of the socket"),
			schema.Str("model", func(p row) *string { return &p.Model }, "Model"),
			schema.Str("manufacturer", func(p row) *string { return &p.Vendor }, "Vendor"),
			text("processor_type", func(row) string { return "3" }, "Type as SMBIOS has it: always 3, a central processor"),
			schema.Calc("cpu_status", schema.Integer, func(row) schema.Value { return schema.IntValue(1) }, "Status as SMBIOS has it: always 1, enabled"),
			text("number_of_cores", func(p row) string { return strconv.Itoa(p.Cores) }, "Cores"),
			schema.Int("logical_processors", func(p row) *int { return &p.Threads }, "Threads, which the kernel runs programs on").As(schema.Integer),
			text("address_width", func(p row) string { return strconv.Itoa(p.AddressBits) }, "Bits of an address: 32 or 64"),
			schema.Int("current_clock_speed", func(p row) *int64 { return &p.Clock }, "Frequency in MHz, 0 when it is not told").As(schema.Integer),
			schema.Int("max_clock_speed", func(p row) *int64 { return &p.Fastest }, "Highest frequency in MHz, 0 when it is not told").As(schema.Integer),
			text("socket_designation", func(row) string { return "" }, "Name of the socket on the board; not known"),
			schema.Absent[row]("availability", schema.Text, "Windows' availability", schema.Hidden),
			schema.Absent[row]("load_percentage", schema.Integer, "Windows' load", schema.Hidden),
			schema.Absent[row]("number_of_efficiency_cores", schema.Integer, "Of macOS", schema.Hidden),
			schema.Absent[row]("number_of_performance_cores", schema.Integer, "Of macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.Packages()
		return pointers(list), err
	}
	return t.Bind()
}

func cpuTimeTable(env *Env) schema.Relation {
	type row = *procfs.CPUTime
	t := &schema.Table[row]{
		Name:    "cpu_time",
		Doc:     "How long each processor did what since boot, in hundredths of a second.",
		Columns: []schema.Column[row]{schema.Int("core", func(c row) *int64 { return &c.Core }, "Number of the processor").As(schema.Integer)},
	}
	for i, c := range [...][2]string{
		{"user", "Programs"}, {"nice", "Programs of low priority"}, {"system", "The kernel"}, {"idle", "Nothing"},
		{"iowait", "Nothing, with somebody waiting for a disk"}, {"irq", "Interrupts"}, {"softirq", "What interrupts left to do"},
		{"steal", "Other machines on the same hardware"}, {"guest", "Virtual machines of this one"}, {"guest_nice", "Virtual machines of low priority"},
	} {
		t.Columns = append(t.Columns, schema.Int(c[0], func(c row) *int64 { return &c.Spent[i] }, c[1]))
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.CPUTimes()
		return pointers(list), err
	}
	return t.Bind()
}

func memoryInfoTable(env *Env) schema.Relation {
	type row = map[string]int64
	t := &schema.Table[row]{Name: "memory_info", Doc: "How much memory there is, in bytes, one row."}
	for _, c := range [...][3]string{
		{"memory_total", "MemTotal", "All that the kernel has"}, {"memory_free", "MemFree", "Used for nothing"},
		{"memory_available", "MemAvailable", "What programs can have without swapping"}, {"buffers", "Buffers", "Buffers of block devices"},
		{"cached", "Cached", "Contents of files"}, {"swap_cached", "SwapCached", "In memory and in swap"},
		{"active", "Active", "Used lately"}, {"inactive", "Inactive", "Not used lately"},
		{"swap_total", "SwapTotal", "Swap"}, {"swap_free", "SwapFree", "Swap that is used for nothing"},
	} {
		t.Columns = append(t.Columns, schema.Calc(c[0], schema.BigInt, func(m row) schema.Value { return schema.IntValue(m[c[1]]) }, c[2]))
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		m, err := env.FS.Memory()
		return []row{m}, err
	}
	return t.Bind()
}

func loadAverageTable(env *Env) schema.Relation {
	type row = *[2]string
	t := &schema.Table[row]{
		Name: "load_average",
		Doc:  "How many processes ran, or waited for a disk, on average.",
		Columns: []schema.Column[row]{
			schema.Str("period", func(r row) *string { return &r[0] }, "Over how long: 1m, 5m or 15m"),
			schema.Str("average", func(r row) *string { return &r[1] }, "How many"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		of, err := env.FS.LoadAverage()
		if err != nil {
			return nil, err
		}
		return []row{{"1m", of[0]}, {"5m", of[1]}, {"15m", of[2]}}, nil
	}
	return t.Bind()
}

// pciDevice is a row of pci_devices. Names are udev's, from its own list of them.
type pciDevice struct {
	procfs.PCIDevice
	names map[string]string
}

// digits returns n hexadecimal digits of a number that begins with 0x, from the i-th on.
func digits(s string, i, n int) string {
	s = strings.TrimPrefix(s, "0x")
	if len(s) < i+n {
		return ""
	}
	return "0x" + s[i:i+n]
}

func pciDevicesTable(env *Env) schema.Relation {
	type row = *pciDevice
	named := func(name, key, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(d row) schema.Value { return schema.TextValue(d.names[key]) }, doc+", as udev has it")
	}
	t := &schema.Table[row]{
		Name: "pci_devices",
		Doc:  "Devices on the PCI bus.",
		Columns: []schema.Column[row]{
			schema.Str("pci_slot", func(d row) *string { return &d.Slot }, "Where it is: domain, bus, device, function"),
			named("pci_class", "ID_PCI_CLASS_FROM_DATABASE", "Class"),
			schema.Str("driver", func(d row) *string { return &d.Driver }, "Driver that serves it"),
			named("vendor", "ID_VENDOR_FROM_DATABASE", "Vendor"),
			schema.Str("vendor_id", func(d row) *string { return &d.Vendor }, "Number of the vendor, hexadecimal"),
			named("model", "ID_MODEL_FROM_DATABASE", "Model"),
			schema.Str("model_id", func(d row) *string { return &d.Device }, "Number of the model, hexadecimal"),
			schema.Calc("pci_class_id", schema.Text, func(d row) schema.Value { return schema.TextValue(digits(d.Class, 0, 2)) }, "Number of the class, hexadecimal"),
			schema.Calc("pci_subclass_id", schema.Text, func(d row) schema.Value { return schema.TextValue(digits(d.Class, 2, 2)) }, "Number of the subclass, hexadecimal"),
			named("pci_subclass", "ID_PCI_SUBCLASS_FROM_DATABASE", "Subclass"),
			schema.Str("subsystem_vendor_id", func(d row) *string { return &d.SubsystemVendor }, "Number of who made the board, hexadecimal"),
			named("subsystem_vendor", "ID_SUBSYSTEM_VENDOR_FROM_DATABASE", "Who made the board"),
			schema.Str("subsystem_model_id", func(d row) *string { return &d.SubsystemModel }, "Number of the board, hexadecimal"),
			named("subsystem_model", "ID_SUBSYSTEM_MODEL_FROM_DATABASE", "The board"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		list, err := env.FS.PCIDevices()
		var rows []row
		for _, d := range list {
			rows = append(rows, &pciDevice{d, r.udevProperties("+pci:" + d.Slot)})
		}
		return rows, err
	}
	return t.Bind()
}

func usbDevicesTable(env *Env) schema.Relation {
	type row = *procfs.USBDevice
	t := &schema.Table[row]{
		Name: "usb_devices",
		Doc:  "Devices on USB, hubs among them.",
		Columns: []schema.Column[row]{
			schema.Int("usb_address", func(d row) *int64 { return &d.Address }, "Address on its bus").As(schema.Integer),
			schema.Int("usb_port", func(d row) *int64 { return &d.Bus }, "Number of the bus").As(schema.Integer),
			schema.Str("vendor", func(d row) *string { return &d.Vendor }, "Vendor, as udev has it, or as it says itself"),
			schema.Str("vendor_id", func(d row) *string { return &d.VendorID }, "Number of the vendor, hexadecimal"),
			schema.Str("version", func(d row) *string { return &d.Version }, "Version of the device"),
			schema.Str("model", func(d row) *string { return &d.Model }, "Model, as udev has it, or as it says itself"),
			schema.Str("model_id", func(d row) *string { return &d.ModelID }, "Number of the model, hexadecimal"),
			schema.Str("serial", func(d row) *string { return &d.Serial }, "Serial number"),
			schema.Str("class", func(d row) *string { return &d.Class }, "Class, hexadecimal; 00 is told by each interface"),
			schema.Str("subclass", func(d row) *string { return &d.Subclass }, "Subclass, hexadecimal"),
			schema.Str("protocol", func(d row) *string { return &d.Protocol }, "Protocol, hexadecimal"),
			schema.Calc("removable", schema.Integer, func(d row) schema.Value { return schema.BoolValue(d.Removable == "removable") }, "1 when it can be unplugged"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		list, err := env.FS.USBDevices()
		rows := pointers(list)
		for _, d := range rows {
			names := r.udevProperties("c" + d.Number)
			if v := names["ID_VENDOR_FROM_DATABASE"]; v != "" {
				d.Vendor = v
			}
			if v := names["ID_MODEL_FROM_DATABASE"]; v != "" {
				d.Model = v
			}
		}
		return rows, err
	}
	return t.Bind()
}
