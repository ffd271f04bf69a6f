package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	defaultSegment = 64 << 20
	defaultReserve = 64 << 20
)

// Open opens the store in dir, or makes it there, after recovery: what no index
// entry refers to is dropped. ErrLocked when another process has it, ErrIndex when
// the index cannot be read; nothing is changed then. A segment that is missing or too
// short is logged and told by Check; the rest is served.
func Open(dir string, o Options) (*Store, error) {
	s := newStore(dir, o)
	if err := s.open(o); err != nil {
		s.close()
		return nil, fmt.Errorf("open the store in %s: %w", dir, err)
	}
	go s.run()
	return s, nil
}

func newStore(dir string, o Options) *Store {
	s := &Store{
		dir:         dir,
		fs:          o.FS,
		now:         o.Now,
		log:         o.Log,
		segmentSize: o.SegmentSize,
		reserve:     o.Reserve,
		ended:       make(chan struct{}),
	}
	if s.fs == nil {
		s.fs = DirFS(dir)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.segmentSize == 0 {
		s.segmentSize = defaultSegment
	}
	if s.reserve == 0 {
		s.reserve = defaultReserve
	}
	s.queue.some.L = &s.queue.mu
	s.batch.s = s
	return s
}

func (s *Store) open(o Options) error {
	if err := makeDir(s.dir); err != nil {
		return err
	}
	var err error
	if s.unlock, err = lockDir(s.dir, patience()); err != nil {
		return err
	}
	files, err := s.listBodies()
	if err != nil {
		return err
	}
	if err := s.openEngine(o, files); err != nil {
		return err
	}
	if err := s.readTables(); err != nil {
		return err
	}
	if err := s.sweep(files); err != nil {
		return err
	}
	if err := s.resume(); err != nil {
		return err
	}
	return s.begin()
}

// makeDir makes the data directory, durably, readable by its owner only.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// patience says "try again" every 20 ms until lockWait is over.
func patience() func() bool {
	const step = 20 * time.Millisecond
	left := lockWait
	return func() bool {
		time.Sleep(step)
		left -= step
		return left > 0
	}
}

// listBodies returns the names below bodies, which it makes if need be.
func (s *Store) listBodies() ([]fs.DirEntry, error) {
	entries, err := s.fs.ReadDir(bodiesDir)
	if !errors.Is(err, fs.ErrNotExist) {
		return entries, err
	}
	if err := s.fs.MkdirAll(bodiesDir, 0o700); err != nil {
		return nil, err
	}
	return nil, s.fs.SyncDir(".")
}

// openEngine opens the index. Bodies without an index are not a new store.
func (s *Store) openEngine(o Options, files []fs.DirEntry) (err error) {
	if o.engine != nil {
		s.engine, err = o.engine()
		return err
	}
	_, err = os.Stat(filepath.Join(s.dir, indexName))
	if errors.Is(err, fs.ErrNotExist) && hasSegment(files) {
		return fmt.Errorf("%w: %s is missing, but %s holds messages: restore it from a backup, or move %s away to begin anew",
			ErrIndex, indexName, bodiesDir, bodiesDir)
	}
	bolt, err := openBolt(s.dir)
	if err != nil {
		return err
	}
	s.engine = bolt
	return nil
}

func hasSegment(files []fs.DirEntry) bool {
	for _, f := range files {
		if _, ok := parseSegmentName(f.Name()); ok {
			return true
		}
	}
	return false
}

func (s *Store) readTables() error {
	return s.engine.View(func(r Reader) (err error) {
		if s.super, err = readSuper(r); err != nil {
			return err
		}
		s.segments, err = readSegments(r)
		s.last.Store(uint64(s.super.lastID))
		s.out.next = s.super.nextSegment
		return err
	})
}

// sweep holds the files against the index: leftovers go, damage and what is not ours
// is told. A segment that this user may not open is an error: it is not damaged.
func (s *Store) sweep(files []fs.DirEntry) error {
	for _, g := range s.segments {
		g.damaged = true // until its file is seen
		s.out.next = max(s.out.next, g.number+1)
	}
	for _, f := range files {
		if err := s.sweepFile(f.Name()); errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	for number, g := range s.segments {
		if g.damaged {
			s.log.Error("a segment is missing or cut off: its messages cannot be read; restore it from a backup",
				"file", segmentName(number), "octets", g.end, "messages", g.bodies)
		}
	}
	return nil
}

func (s *Store) sweepFile(name string) error {
	number, isSegment := parseSegmentName(name)
	switch {
	case isDraftName(name):
		s.removeLeftover(bodiesDir + "/" + name)
	case !isSegment:
		s.log.Warn("a file that is not ours lies among the messages; it is left alone", "file", bodiesDir+"/"+name)
	case s.segments[number] == nil:
		s.out.next = max(s.out.next, number+1)
		s.removeLeftover(segmentName(number))
	default:
		if err := s.sweepSegment(s.segments[number]); err != nil {
			s.log.Error("a segment cannot be looked at", "file", segmentName(number), "err", err)
			return err
		}
	}
	return nil
}

func (s *Store) removeLeftover(name string) {
	if err := s.fs.Remove(name); err != nil {
		s.log.Warn("a leftover cannot be removed", "file", name, "err", err)
		return
	}
	s.log.Info("a leftover of a message that was never accepted, or was deleted, is removed", "file", name)
}

// sweepSegment cuts off what lies beyond the last reference.
func (s *Store) sweepSegment(g *segment) error {
	f, err := s.fs.OpenFile(segmentName(g.number), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	g.damaged = st.Size() < g.end
	if st.Size() <= g.end {
		return nil
	}
	s.log.Info("what a crash left behind the last message of a segment is cut off",
		"file", segmentName(g.number), "octets", st.Size()-g.end)
	return f.Truncate(g.end)
}

// resume opens the segment that was growing, if it still can.
func (s *Store) resume() error {
	var newest *segment
	for _, g := range s.segments {
		if !g.own && (newest == nil || g.number > newest.number) {
			newest = g
		}
	}
	if newest == nil || newest.damaged || newest.end >= s.segmentSize {
		return nil
	}
	f, err := s.fs.OpenFile(segmentName(newest.number), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := tailEnds(f, newest.end); err != nil {
		s.log.Error("the last segment is damaged; a new one is begun", "file", segmentName(newest.number), "err", err)
		newest.damaged = true
		return f.Close()
	}
	s.out.file, s.out.now, s.out.size, s.out.laid = f, newest, newest.end, newest.end
	return nil
}

// tailEnds looks whether a segment ends where and as the index says.
func tailEnds(f File, end int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != end {
		return fmt.Errorf("%w: %d octets long instead of %d", ErrDamaged, st.Size(), end)
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], end-1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if last[0] != '\n' {
		return fmt.Errorf("%w: it does not end as a message does", ErrDamaged)
	}
	return nil
}

// begin makes the first commit. It makes durable what was read: after a failed fsync
// the file may have shown more than the disk holds. It also drops empty segments.
func (s *Store) begin() error {
	for _, g := range s.segments {
		if g.bodies <= 0 && g != s.out.now {
			s.batch.touch(g)
		}
	}
	s.ballast = s.hasBallast()
	if free, err := s.fs.Free(); err == nil {
		s.easeDisk(free)
	}
	err := s.engine.Update(func(w writer) error {
		b := &s.batch
		b.begin(s, w)
		s.super = superRecord{ID(s.last.Load()) + lastIDAhead, s.out.next}
		w.Put(NewKey(tableSuper), b.value(s.super))
		b.writeSegments()
		return nil
	})
	if err != nil {
		return fmt.Errorf("the first commit: %w", err)
	}
	s.batch.committed(s)
	s.batch.removeDropped(s)
	s.keepBallast()
	return nil
}

// NewID returns an ID greater than all before it, in this and earlier processes.
func (s *Store) NewID() ID {
	now := uint64(max(s.now().UnixMicro(), 0))
	for {
		last := s.last.Load()
		next := max(last+1, now)
		if s.last.CompareAndSwap(last, next) {
			return ID(next)
		}
	}
}

// Close ends the store; transactions under way end first. Open bodies stay readable.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.queue.close()
		<-s.ended
		s.closed = errors.Join(s.storeLastID(), s.close())
	})
	return s.closed
}

// storeLastID lets the next process go on with the very next ID.
func (s *Store) storeLastID() error {
	if s.Failed() != nil {
		return nil
	}
	return s.engine.Update(func(w writer) error {
		w.Put(NewKey(tableSuper), superRecord{ID(s.last.Load()), s.out.next}.append(nil))
		return nil
	})
}

// close lets go of whatever is open.
func (s *Store) close() error {
	var errs []error
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.out.file != nil {
		errs = append(errs, s.out.trim())
	}
	s.files.close()
	if s.unlock != nil {
		errs = append(errs, s.unlock())
	}
	return errors.Join(errs...)
}
