package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch names what to observe on the machine of the server, when it is this
// machine and Linux. The zero value observes only the generator itself.
type Watch struct {
	Pids  []int    // processes, each with all its descendants
	Names []string // or all processes of these names, with all their descendants
	Path  string   // a file or directory; flushes of the disk that holds it are counted
	// Settle is how long, at most, to wait after the last message until the
	// processes are idle, so that work put off is counted too. 0 does not wait.
	Settle time.Duration
}

// Usage is what a run cost. Processor time is user and system time, with that of
// children that have ended; the kernel counts it in steps of 10 ms.
type Usage struct {
	ServerCPU         float64 `json:"server_cpu_ms"`
	ServerPerMessage  float64 `json:"server_cpu_ms_per_message"`
	GeneratorCPU      float64 `json:"generator_cpu_ms"`
	GeneratorPer      float64 `json:"generator_cpu_ms_per_message"`
	Device            string  `json:"device,omitempty"` // whose flushes were counted, of all processes
	Flushes           int64   `json:"flushes,omitempty"`
	FlushesPerMessage float64 `json:"flushes_per_message,omitempty"`
	Note              string  `json:"note,omitempty"` // what could not be observed
}

func (u *Usage) text(b *strings.Builder) {
	if u == nil {
		return
	}
	fmt.Fprintf(b, "cpu per message: server %s ms, generator %s ms", short(u.ServerPerMessage), short(u.GeneratorPer))
	if u.Device != "" {
		fmt.Fprintf(b, "; flushes of %s per message: %s", u.Device, short(u.FlushesPerMessage))
	}
	b.WriteByte('\n')
	if u.Note != "" {
		fmt.Fprintf(b, "not observed: %s\n", u.Note)
	}
}

// A usage is the difference between two observations.
type usage struct {
	server, generator time.Duration
	device            string
	flushes           int64
	err               error
}

func (u usage) perMessage(r *Report, messages int64) {
	n := float64(max(messages, 1))
	r.Usage = &Usage{
		ServerCPU: millis(u.server), ServerPerMessage: millis(u.server) / n,
		GeneratorCPU: millis(u.generator), GeneratorPer: millis(u.generator) / n,
		Device: u.device, Flushes: u.flushes, FlushesPerMessage: float64(u.flushes) / n,
	}
	if u.err != nil {
		r.Usage.Note = u.err.Error()
	}
}

// An observation remembers where the counters stood.
type observation struct {
	Watch
	sys      system
	server   time.Duration
	own      time.Duration
	device   string
	flushes  int64
	flushErr error
}

// start reads the counters. Processes that cannot be found are an error, since the
// caller named them; a disk that cannot be observed is noted in the report.
func (w Watch) start() (*observation, error) {
	o := &observation{Watch: w, sys: linux}
	cpu, err := o.sys.cpu(w)
	if err != nil {
		return o, err
	}
	o.server, o.own = cpu, ownCPU()
	if w.Path != "" {
		o.device, o.flushErr = o.sys.deviceOf(w.Path)
		if o.flushErr == nil {
			o.flushes, o.flushErr = o.sys.flushes(o.device)
		}
	}
	return o, nil
}

// stop waits for the processes to settle and reads the counters again.
func (o *observation) stop(ctx context.Context) usage {
	u := usage{generator: ownCPU() - o.own}
	cpu, err := o.settle(ctx)
	u.server = max(cpu-o.server, 0)
	u.err = errors.Join(err, o.flushErr)
	if o.Path == "" || o.flushErr != nil {
		return u
	}
	now, err := o.sys.flushes(o.device)
	u.err = errors.Join(u.err, err)
	u.device, u.flushes = o.device, max(now-o.flushes, 0)
	return u
}

const (
	settleStep  = 250 * time.Millisecond
	settleQuiet = 2 // steps in a row with no more than a tick of processor time
)

func (o *observation) settle(ctx context.Context) (time.Duration, error) {
	cpu, err := o.sys.cpu(o.Watch)
	if !o.watches() {
		return cpu, err
	}
	until := time.Now().Add(o.Settle)
	for quiet := 0; err == nil && quiet < settleQuiet && time.Now().Before(until); {
		if !pause(ctx, settleStep) {
			break
		}
		before := cpu
		cpu, err = o.sys.cpu(o.Watch)
		if quiet++; cpu-before > tick {
			quiet = 0
		}
	}
	return cpu, err
}

// processesOnly observes what can be observed around something short.
func (w Watch) processesOnly() Watch { return Watch{Pids: w.Pids, Names: w.Names} }

// memory is what the watched processes hold, in octets: shared pages in proportion,
// where the kernel lets us see them. 0 when it does not.
func (w Watch) memory() int64 {
	if !w.watches() {
		return 0
	}
	all, err := linux.processes()
	if err != nil {
		return 0
	}
	tree, _ := family(all, w)
	var sum int64
	for pid := range tree {
		sum += linux.pss(pid)
	}
	return sum
}

// pss reads the proportional set size in /proc/PID/smaps_rollup.
func (s system) pss(pid int) int64 {
	text, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

func (w Watch) watches() bool { return len(w.Pids)+len(w.Names) > 0 }

func ownCPU() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// A system is where the kernel shows its counters.
type system struct{ proc, sys string }

// linux is a value, not a setting.
var linux = system{"/proc", "/sys"}

const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux platform of Go

// A process is one line of /proc/PID/stat, as far as it matters here.
type process struct {
	pid, parent int
	name        string
	cpu         time.Duration // its own and that of children it has waited for
}

// cpu is the processor time of all processes that w names and their descendants.
// A descendant that ended is in its parent's figure; one that ends while we read
// may be in neither, therefore we look twice and believe the larger.
func (s system) cpu(w Watch) (time.Duration, error) {
	if !w.watches() {
		return 0, nil
	}
	first, err := s.cpuNow(w)
	if err != nil {
		return 0, err
	}
	second, err := s.cpuNow(w)
	return max(first, second), err
}

func (s system) cpuNow(w Watch) (time.Duration, error) {
	all, err := s.processes()
	if err != nil {
		return 0, err
	}
	tree, err := family(all, w)
	var sum time.Duration
	for pid := range tree {
		sum += all[pid].cpu
	}
	return sum, err
}

// family is the set of processes that w names, with their descendants.
func family(all map[int]process, w Watch) (map[int]bool, error) {
	tree := map[int]bool{}
	for _, pid := range w.Pids {
		if _, ok := all[pid]; !ok {
			return nil, fmt.Errorf("process %d is not running", pid)
		}
		tree[pid] = true
	}
	for _, name := range w.Names {
		if !addNamed(tree, all, name) {
			return nil, fmt.Errorf("no process named %q is running", name)
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, p := range all {
			if tree[p.parent] && !tree[pid] {
				tree[pid], grown = true, true
			}
		}
	}
	return tree, nil
}

func addNamed(tree map[int]bool, all map[int]process, name string) (found bool) {
	for pid, p := range all {
		if p.name == name {
			tree[pid], found = true, true
		}
	}
	return found
}

func (s system) processes() (map[int]process, error) {
	entries, err := os.ReadDir(s.proc)
	if err != nil {
		return nil, fmt.Errorf("read processor times: %w", err)
	}
	all := map[int]process{}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.proc, e.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		if p, ok := parseStat(string(text)); ok {
			all[p.pid] = p
		}
	}
	return all, nil
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name is in parentheses
// and may hold anything.
func parseStat(text string) (process, bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	fields := strings.Fields(text[end+1:]) // from field 3, the state
	if err != nil || len(fields) < 15 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	p := process{pid: pid, parent: parent, name: text[open+1 : end]}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return process{}, false
		}
		p.cpu += time.Duration(n) * tick
	}
	return p, true
}

// deviceOf is the name of the whole disk that holds path, as /proc/diskstats has
// it: the kernel counts flushes there, not at its partitions.
func (s system) deviceOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("find the disk of %s: %w", path, err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	dir, err := filepath.EvalSymlinks(filepath.Join(s.sys, "dev/block", number))
	if err != nil {
		return "", fmt.Errorf("%s is not directly on a disk whose flushes the kernel shows", path)
	}
	return wholeDisk(dir), nil
}

// wholeDisk goes from a mapped volume to the disk under it, and from a partition
// to its disk.
func wholeDisk(dir string) string {
	for range 8 {
		under, _ := filepath.Glob(filepath.Join(dir, "slaves", "*"))
		if len(under) == 0 {
			break
		}
		real, err := filepath.EvalSymlinks(under[0])
		if err != nil {
			break
		}
		dir = real
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	return filepath.Base(dir)
}

// flushes is how many flush requests the disk has completed since boot, for
// anyone: field 16 of Documentation/admin-guide/iostats.rst, Linux 5.5 and later.
func (s system) flushes(device string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(s.proc, "diskstats"))
	if err != nil {
		return 0, fmt.Errorf("read disk counters: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // major, minor, name, then the fields
		if len(f) < 19 || f[2] != device {
			continue
		}
		return strconv.ParseInt(f[18], 10, 64)
	}
	return 0, fmt.Errorf("the kernel shows no flushes for the disk %s", device)
}
