package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"time"
)

// errEnded is why the store fails when an update's function ends its goroutine.
var errEnded = errors.New("an update's function ended the committer's goroutine (runtime.Goexit, or t.FailNow in a test)")

// run commits batch after batch until the queue is closed and empty.
func (s *Store) run() {
	var batch []*op
	regular := false
	defer func() {
		if regular {
			close(s.ended)
			return
		}
		s.fail(errEnded)
		s.finish(batch, s.Failed())
		go s.run()
	}()
	expected, took := 0, time.Duration(0)
	for {
		batch = s.queue.take(batch[:0], expected, min(took, patienceGather))
		if len(batch) == 0 {
			regular = true
			return
		}
		began := time.Now()
		err := s.commit(batch)
		expected, took = callers(batch)+s.queue.callers(), time.Since(began)
		s.finish(batch, err)
	}
}

// commit makes a batch durable. An error means that nobody knows whether it is.
func (s *Store) commit(batch []*op) error {
	free, err := s.fs.Free()
	s.appendBodies(batch, free, err)
	if err := s.Failed(); err != nil {
		return err
	}
	if err == nil {
		s.easeDisk(free)
	}
	err = s.engine.Update(func(w writer) error { return s.batch.run(s, w, batch) })
	switch {
	case errors.Is(err, errUnchanged):
		return nil
	case err != nil:
		s.fail(fmt.Errorf("commit to the index: %w", err))
		return s.Failed()
	}
	// The commit point has passed.
	s.counts.commits.Add(1)
	s.counts.flushes.Add(flushesPerCommit)
	s.batch.committed(s)
	return nil
}

// finish runs the hooks of a batch, lets go of its drafts, and wakes the callers.
// After a failed commit files stay: Open knows which of them count.
func (s *Store) finish(batch []*op, failed error) {
	for _, o := range batch {
		s.finishOne(o, failed)
	}
	if failed == nil {
		s.batch.removeDropped(s)
		s.keepBallast()
	}
}

func (s *Store) finishOne(o *op, failed error) {
	if o.finished {
		return
	}
	o.finished = true
	if o.err == nil && o.panicked == nil {
		o.err = failed
	}
	if o.err == nil && o.panicked == nil {
		s.counts.updates.Add(1)
		s.runHooks(o)
	}
	for _, d := range o.drafts {
		if failed == nil {
			s.removeUnused(d)
		}
		d.release()
	}
	close(o.done)
}

// runHooks calls what OnCommit was given; a panic goes to Update's caller.
func (s *Store) runHooks(o *op) {
	defer func() {
		if p := recover(); p != nil {
			o.panicked = p
			s.logPanic(p)
		}
	}()
	for _, fn := range o.hooks {
		fn()
	}
}

// logPanic keeps the stack of a panic that is raised again on another goroutine.
func (s *Store) logPanic(p any) {
	s.log.Error("panic in an update", "panic", p, "stack", string(debug.Stack()))
}

// removeUnused unlinks a large draft's file unless it has become a body.
func (s *Store) removeUnused(d *Draft) {
	switch {
	case !d.large:
	case d.at.segment == 0:
		d.remove(draftName(d.id))
	case !s.hasSegment(d.at.segment):
		s.removeSegment(d.at.segment)
	}
}

func (s *Store) hasSegment(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[number] != nil
}

// removeSegment unlinks a segment's file; those who have it open read on.
func (s *Store) removeSegment(number uint64) {
	s.files.forget(number)
	if err := s.fs.Remove(segmentName(number)); err != nil {
		s.log.Warn("a dropped segment stays until the next start", "segment", number, "err", err)
	}
}

// refuse fails those ops of a batch that have drafts, or small ones.
func refuse(batch []*op, onlySmall bool, err error) {
	for _, o := range batch {
		if o.err == nil && len(o.drafts) > 0 && (!onlySmall || o.octets() > 0) {
			o.err = err
		}
	}
}

// appendBodies makes the drafts of a batch durable in segments, or refuses them when the
// disk is nearly full, or does not say.
func (s *Store) appendBodies(batch []*op, free int64, unknown error) {
	var small int64
	some, inner := false, true
	for _, o := range batch {
		if len(o.drafts) > 0 {
			small += o.octets()
			some = true
			inner = inner && o.inner
		}
	}
	if !some {
		return
	}
	reserve := s.reserve
	if inner {
		reserve = min(reserve, innerReserve)
	}
	if err := cmp.Or(unknown, checkRoom(free, small, reserve)); err != nil {
		refuse(batch, false, err)
		return
	}
	s.adoptLarge(batch)
	s.appendSmall(batch, small)
}

// innerReserve is what compaction leaves free: it gives back more than it takes.
const innerReserve = 16 << 20

// adoptLarge gives each large draft of a batch its segment's name.
func (s *Store) adoptLarge(batch []*op) {
	renamed := false
	for _, o := range batch {
		for _, d := range o.drafts {
			if d.large && o.err == nil {
				o.err = s.adopt(d)
				renamed = true
			}
		}
	}
	if renamed {
		_ = s.syncBodiesDir() // the store has failed then
	}
}

func (s *Store) adopt(d *Draft) error {
	number := s.out.takeNumber()
	if err := s.fs.Rename(draftName(d.id), segmentName(number)); err != nil {
		return asFull(err)
	}
	d.at = location{segment: number, offset: int64(headerLen), size: d.size, crc: d.crc}
	return nil
}

// appendSmall writes the small drafts of a batch to the growing segment and syncs it.
func (s *Store) appendSmall(batch []*op, octets int64) {
	if octets == 0 || s.Failed() != nil {
		return
	}
	if err := s.openSegment(); err != nil {
		refuse(batch, true, err)
		return
	}
	buf, offset := s.out.gather(batch)
	if len(buf) == 0 || !s.lay(batch, int64(len(buf))) {
		return
	}
	if _, err := s.out.file.WriteAt(buf, offset); err != nil {
		refuse(batch, true, s.takeBack(err))
		return
	}
	s.out.size += int64(len(buf))
	_ = s.sync(s.out.file) // the store has failed then
}

// layAhead is how far the growing segment is filled with zeros before its bodies. An
// append that overwrites changes neither length nor layout of the file, and its
// fdatasync needs no commit of the file system's journal: half the time, measured.
const layAhead = 1 << 20

// lay makes sure that the next octets of the growing segment overwrite. Without room
// for that they are appended after all. It reports false when the store has failed.
func (s *Store) lay(batch []*op, octets int64) bool {
	a := &s.out
	if a.size+octets <= a.laid {
		return true
	}
	from, to := max(a.laid, a.size), a.size+octets+min(layAhead, s.segmentSize)
	if err := writeZeros(a.file, from, to); err != nil {
		err = s.takeBack(err)
		if s.Failed() != nil {
			refuse(batch, true, err)
			return false
		}
		return true
	}
	a.laid = to
	return true
}

var zeros [64 << 10]byte

func writeZeros(w io.WriterAt, from, to int64) error {
	for from < to {
		n, err := w.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// takeBack cuts off a write for which there was no room. Any other failed write, or a
// failed cut, is a failed store.
func (s *Store) takeBack(err error) error {
	if isFull(err) {
		cut := s.out.file.Truncate(s.out.size)
		s.out.laid = s.out.size
		if cut == nil {
			return asFull(err)
		}
		err = errors.Join(err, cut)
	}
	s.fail(err)
	return s.Failed()
}

// An appender is the segment that grows.
type appender struct {
	next uint64 // the next segment number
	file File   // nil before the first append
	now  *segment
	size int64 // where the next append goes
	laid int64 // where the zeros end that were laid ahead; below size when there are none
	buf  []byte
}

// trim cuts off the zeros that were laid ahead, and closes the file. Where it fails,
// Open does it.
func (a *appender) trim() error {
	var err error
	if a.laid > a.size {
		err = a.file.Truncate(a.size)
	}
	return errors.Join(err, a.file.Close())
}

func (a *appender) takeNumber() uint64 {
	a.next++
	return a.next - 1
}

// gather lays the small drafts of a batch end to end and tells each where it lies.
func (a *appender) gather(batch []*op) (buf []byte, offset int64) {
	var all []*Draft
	at := a.size
	for _, o := range batch {
		for _, d := range o.drafts {
			if o.err != nil || d.large {
				continue
			}
			d.at = location{a.now.number, at + int64(headerLen), d.size, d.crc}
			at += int64(len(d.buf))
			all = append(all, d)
		}
	}
	if len(all) == 1 {
		return all[0].buf, a.size
	}
	if cap(a.buf) > 2*maxBatchOctets {
		a.buf = nil // one update was larger than a batch should be
	}
	a.buf = a.buf[:0]
	for _, d := range all {
		a.buf = append(a.buf, d.buf...)
	}
	return a.buf, a.size
}

// openSegment sees to it that there is a segment with room. A new one is durable, with
// its name, before anything is written to it.
func (s *Store) openSegment() error {
	if s.out.file != nil && s.out.size < s.segmentSize {
		return nil
	}
	number := s.out.takeNumber()
	file, err := s.fs.OpenFile(segmentName(number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return asFull(err)
	}
	if err := s.sync(file); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := s.syncBodiesDir(); err != nil {
		return errors.Join(err, file.Close())
	}
	s.closeSegment()
	s.out.file, s.out.size, s.out.laid = file, 0, 0
	s.out.now = &segment{number: number}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[number] = s.out.now
	return nil
}

// closeSegment ends the growth of the present segment.
func (s *Store) closeSegment() {
	if s.out.file == nil {
		return
	}
	if err := s.out.trim(); err != nil {
		s.log.Warn("close a full segment", "segment", s.out.now.number, "err", err) // all of it is synced
	}
	s.batch.touch(s.out.now) // it may be wholly dead by now
	s.out.file, s.out.now = nil, nil
}

// The ballast is a file that is given up when the disk is full, so that deleting
// mail, which writes a few pages before it frees any, still works.
const (
	ballastName = "ballast"
	ballastSize = 1 << 20
	ballastLow  = 1 << 20 // free octets at which the ballast goes
	ballastHigh = 8 << 20 // and at which it comes back
)

// easeDisk gives up the ballast when nothing else is left.
func (s *Store) easeDisk(free int64) {
	if !s.ballast || free >= ballastLow {
		return
	}
	s.ballast = false
	if err := s.fs.Remove(ballastName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the disk is full and the ballast cannot be given up", "err", err)
		return
	}
	s.log.Error("the disk is full: new mail is refused, the ballast was given up so that mail can be deleted")
}

// keepBallast lays the ballast when there is room for it. Its failure harms nobody.
func (s *Store) keepBallast() {
	if s.ballast || s.Failed() != nil {
		return
	}
	free, err := s.fs.Free()
	if err != nil || free < ballastHigh {
		return
	}
	s.ballast = s.layBallast() == nil
}

func (s *Store) hasBallast() bool {
	f, err := s.fs.OpenFile(ballastName, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func (s *Store) layBallast() error {
	f, err := s.fs.OpenFile(ballastName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err == nil && st.Size() == ballastSize {
		return f.Close()
	}
	_, err = f.WriteAt(make([]byte, ballastSize), 0) // not synced: the room is taken at once
	return errors.Join(err, f.Close())
}
