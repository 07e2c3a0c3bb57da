package procfs

import "testing"

// BenchmarkProcess reads what the process table wants of every process; the budget is
// about 20 us a process on the machine of libraries.md, section 12.
func BenchmarkProcess(b *testing.B) {
	d, err := At("/").Open()
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	pids, err := d.Pids(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var stat Stat
	var status Status
	n := 0
	for b.Loop() {
		for _, pid := range pids {
			p, err := d.Process(pid)
			if err != nil {
				continue
			}
			p.Stat(&stat)
			p.Status(&status)
			p.Cmdline()
			p.Exe()
			p.Cwd()
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "us/process")
}
