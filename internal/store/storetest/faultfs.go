package storetest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postroad/internal/store"
)

// A Fault is how an operation goes wrong.
type Fault string

const (
	NotDone Fault = "not done"          // EIO, and nothing happened
	Done    Fault = "done, told failed" // EIO, but it happened
	Half    Fault = "half done"         // EIO after half of a write
	Full    Fault = "full"              // ENOSPC after half of a write
	Cut     Fault = "cut"               // the power goes: this and all that follows fails
)

// Faults are all forms.
var Faults = []Fault{NotDone, Done, Half, Full, Cut}

// A Keep is what a power cut leaves of what was not synced.
type Keep string

const (
	KeepNone   Keep = "none"   // nothing
	KeepAll    Keep = "all"    // everything, in order
	KeepPrefix Keep = "prefix" // what came first
	KeepSome   Keep = "some"   // any of it, in any order, writes torn at 512 octets
)

// Keeps are all forms.
var Keeps = []Keep{KeepNone, KeepAll, KeepPrefix, KeepSome}

// FaultFS is a store.FS in memory. It knows of each file and each directory what a
// power cut would leave, and fails the operation that it is told to. An fsync that
// fails loses what it should have written: a second one does not bring it back.
type FaultFS struct {
	mu      sync.Mutex
	names   map[string]*node // as the process sees them
	durable map[string]*node // as the disk has them
	pending []change         // what is not synced, oldest first
	free    int64
	boot    int // handles of earlier boots are dead

	ops     []string // what was done, in order
	failAt  int      // index into ops; -1 is never
	fault   Fault
	sticky  bool
	tripped bool
}

// A node is a file or a directory.
type node struct {
	dir     bool
	data    []byte // as the process sees it
	durable []byte
}

// A change is something that is not synced. One of a name has a name.
type change struct {
	node *node
	name string // then node is what it names from now on, nil is nothing

	data []byte // a write at off
	off  int64
	size int64 // a truncation to size when data is nil
}

// NewFaultFS returns an empty disk that works.
func NewFaultFS() *FaultFS {
	root := &node{dir: true}
	return &FaultFS{
		names:   map[string]*node{".": root},
		durable: map[string]*node{".": root},
		free:    1 << 40,
		failAt:  -1,
	}
}

// Ops returns what was done so far, in order; its length is the next operation's index.
func (f *FaultFS) Ops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ops)
}

// FailAt makes operation n go wrong; with sticky, all after it too. -1 ends it.
func (f *FaultFS) FailAt(n int, fault Fault, sticky bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.fault, f.sticky, f.tripped = n, fault, sticky || fault == Cut, false
}

// Tripped says whether the fault has happened.
func (f *FaultFS) Tripped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tripped
}

// SetFree sets what Free returns.
func (f *FaultFS) SetFree(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = n
}

// Put lays a file with these octets, durably, as a person or another program would.
func (f *FaultFS) Put(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &node{data: slices.Clone(data), durable: slices.Clone(data)}
	f.names[name], f.durable[name] = n, n
}

// File returns a file's octets, or nil.
func (f *FaultFS) File(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.names[name]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// Names returns all files, in order.
func (f *FaultFS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for name, n := range f.names {
		if !n.dir {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// Crash cuts the power and starts the machine again: what was synced is there, of
// the rest what keep says. Open files are dead, faults are over.
func (f *FaultFS) Crash(keep Keep, seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 1))
	for _, c := range kept(f.pending, keep, r) {
		f.persist(c)
	}
	f.pending = nil
	f.names = map[string]*node{}
	for name, n := range f.durable {
		n.data = slices.Clone(n.durable)
		f.names[name] = n
	}
	f.boot++
	f.failAt = -1
}

func kept(pending []change, keep Keep, r *rand.Rand) []change {
	switch keep {
	case KeepAll:
		return pending
	case KeepPrefix:
		return pending[:r.IntN(len(pending)+1)]
	case KeepSome:
		var some []change
		for _, i := range r.Perm(len(pending)) {
			if r.IntN(2) == 0 {
				some = append(some, torn(pending[i], r))
			}
		}
		return some
	}
	return nil
}

// torn keeps a run of a write's sectors, or all of it.
func torn(c change, r *rand.Rand) change {
	const sector = 512
	sectors := (len(c.data) + sector - 1) / sector
	if sectors == 0 || r.IntN(2) == 0 {
		return c
	}
	from := r.IntN(sectors) * sector
	to := min(from+(1+r.IntN(sectors))*sector, len(c.data))
	c.off += int64(from)
	c.data = c.data[from:to]
	return c
}

// persist brings a change to the disk.
func (f *FaultFS) persist(c change) {
	switch {
	case c.name != "" && c.node == nil:
		delete(f.durable, c.name)
	case c.name != "":
		f.durable[c.name] = c.node
	case c.data != nil:
		c.node.durable = writeAt(c.node.durable, c.data, c.off)
	default:
		c.node.durable = resize(c.node.durable, c.size)
	}
}

func writeAt(b, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], p)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// step counts an operation and returns how it goes wrong, if it does; mu must be held.
func (f *FaultFS) step(format string, args ...any) Fault {
	n := len(f.ops)
	f.ops = append(f.ops, fmt.Sprintf(format, args...))
	if f.failAt < 0 || n < f.failAt || (n > f.failAt && !f.sticky) {
		return ""
	}
	f.tripped = true
	return f.fault
}

// errorOf is what the process sees; an operation without halves does nothing then.
func errorOf(op, name string, fault Fault) error {
	err := syscall.EIO
	if fault == Full {
		err = syscall.ENOSPC
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// simple does an operation that has no halves.
func (f *FaultFS) simple(op, name string, do func() error) error {
	fault := f.step("%s %s", op, name)
	if fault != "" && fault != Done {
		return errorOf(op, name, fault)
	}
	if err := do(); err != nil {
		return err
	}
	if fault == Done {
		return errorOf(op, name, fault)
	}
	return nil
}

func (f *FaultFS) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n *node
	err := f.simple("open", name, func() error {
		n = f.names[name]
		switch {
		case n == nil && flag&os.O_CREATE == 0:
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		case n != nil && flag&os.O_EXCL != 0:
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
		case n == nil:
			n = &node{}
			f.setName(name, n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &faultFile{fs: f, node: n, name: name, boot: f.boot, readOnly: flag&(os.O_RDWR|os.O_WRONLY) == 0}, nil
}

// setName changes a directory; mu must be held.
func (f *FaultFS) setName(name string, n *node) {
	if n == nil {
		delete(f.names, name)
	} else {
		f.names[name] = n
	}
	f.pending = append(f.pending, change{name: name, node: n})
}

func (f *FaultFS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.simple("rename", from+" "+to, func() error {
		n := f.names[from]
		if n == nil {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		f.setName(to, n)
		f.setName(from, nil)
		return nil
	})
}

func (f *FaultFS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.simple("remove", name, func() error {
		if f.names[name] == nil {
			return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
		}
		f.setName(name, nil)
		return nil
	})
}

func (f *FaultFS) MkdirAll(name string, perm fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.simple("mkdir", name, func() error {
		if f.names[name] == nil {
			f.setName(name, &node{dir: true})
		}
		return nil
	})
}

func (f *FaultFS) ReadDir(name string) (entries []fs.DirEntry, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.simple("readdir", name, func() error {
		if f.names[name] == nil {
			return &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
		}
		for path, n := range f.names {
			if rest, ok := strings.CutPrefix(path, name+"/"); ok {
				entries = append(entries, fs.FileInfoToDirEntry(info{rest, int64(len(n.data)), n.dir}))
			}
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		return nil
	})
	return entries, err
}

// SyncDir makes the names in a directory durable.
func (f *FaultFS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sync("syncdir", name, func(c change) bool { return c.name != "" && path.Dir(c.name) == name })
}

// sync persists those changes that are ours; when it fails they are lost for the disk.
func (f *FaultFS) sync(op, name string, ours func(change) bool) error {
	fault := f.step("%s %s", op, name)
	rest := f.pending[:0:0]
	for _, c := range f.pending {
		switch {
		case fault == Cut || !ours(c):
			rest = append(rest, c)
		case fault == "" || fault == Done:
			f.persist(c)
		}
	}
	f.pending = rest
	if fault != "" {
		return errorOf(op, name, fault)
	}
	return nil
}

func (f *FaultFS) Free() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.free, nil
}

// faultFile is an open file.
type faultFile struct {
	fs       *FaultFS
	node     *node
	name     string
	boot     int
	readOnly bool
	closed   bool
}

var errDead = errors.New("the file was opened before the power cut")

func (f *faultFile) check() error {
	switch {
	case f.boot != f.fs.boot:
		return errDead
	case f.closed:
		return fs.ErrClosed
	}
	return nil
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check(); err != nil {
		return 0, err
	}
	if fault := f.fs.step("read %s", f.name); fault != "" {
		return 0, errorOf("read", f.name, fault)
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check(); err != nil {
		return 0, err
	}
	if f.readOnly {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EBADF}
	}
	fault := f.fs.step("write %s", f.name)
	n := len(p)
	switch fault {
	case NotDone, Cut:
		n = 0
	case Half, Full:
		n /= 2
	}
	if n > 0 {
		f.node.data = writeAt(f.node.data, p[:n], off)
		f.fs.pending = append(f.fs.pending, change{node: f.node, data: slices.Clone(p[:n]), off: off})
	}
	if fault != "" {
		return n, errorOf("write", f.name, fault)
	}
	return n, nil
}

func (f *faultFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	return f.fs.simple("truncate", f.name, func() error {
		f.node.data = resize(f.node.data, size)
		f.fs.pending = append(f.fs.pending, change{node: f.node, size: size})
		return nil
	})
}

func (f *faultFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	return f.fs.sync("sync", f.name, func(c change) bool { return c.name == "" && c.node == f.node })
}

func (f *faultFile) Stat() (fs.FileInfo, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check(); err != nil {
		return nil, err
	}
	if fault := f.fs.step("stat %s", f.name); fault != "" {
		return nil, errorOf("stat", f.name, fault)
	}
	return info{path.Base(f.name), int64(len(f.node.data)), false}, nil
}

func (f *faultFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return i.size }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
