package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// elsewhere adds up, while operations are measured, what the machine's cores did
// for others: a rate that was measured on a busy machine says little.
type elsewhere struct {
	wall, cpu time.Duration
}

// cores is how many cores were busy elsewhere, on average.
func (e elsewhere) cores() float64 {
	if e.wall == 0 {
		return 0
	}
	return max(e.cpu.Seconds()/e.wall.Seconds(), 0)
}

// othersCPU is the time that all cores together have spent on anything but the
// server and this program, since some point in the past. PostgreSQL is another.
func (b *bench) othersCPU() time.Duration {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0
	}
	return machineCPU() - b.server.cpu() - time.Duration(own.Utime.Nano()+own.Stime.Nano())
}

// machineCPU is the time that all cores together were not idle; what a hypervisor
// took away counts.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int64
	for i, f := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal; the rest is
		// contained in these.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}
