package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
)

// A draft up to this many octets waits in memory and shares a segment.
const smallDraft = 128 << 10

// spaceStep is how many octets a large draft writes between two looks at the free space.
const spaceStep = 4 << 20

var (
	errDraftUsed = errors.New("the draft was already committed or discarded")
	errTooLong   = fmt.Errorf("a body can hold %d octets", int64(maxBody))
)

// Draft is a body being written. Small ones are held in memory, at most 128 KiB; large
// ones go to a file at once. One goroutine. Durable, and a body, once an Update that took it
// returned nil.
type Draft struct {
	s    *Store
	id   ID
	size int64
	crc  uint32
	err  error // the first error; sticky

	// What is not in the file yet. At first it begins with room for the header line.
	buf     []byte
	file    File  // of a large draft, until it is sealed
	large   bool  // it has a file
	flushed int64 // octets in the file
	looked  int64 // flushed when free space was last looked at

	at    location // once a segment holds it
	moved bool     // a body's copy for compaction, not a new body
}

// NewDraft starts a body. The caller hands it to Update or calls Discard.
func (s *Store) NewDraft() *Draft { return s.draft(s.NewID()) }

func (s *Store) draft(id ID) *Draft {
	return &Draft{s: s, id: id, buf: s.buffers.get(0)[:headerLen]}
}

// ID is the body's name from now on.
func (d *Draft) ID() ID { return d.id }

// Size is the number of octets written so far.
func (d *Draft) Size() int64 { return d.size }

// Write adds octets. ErrFull, ErrFailed or an I/O error; the draft is then of no use.
func (d *Draft) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) && d.err == nil {
		n := min(len(p)-done, maxBuffer-len(d.buf))
		if n == 0 {
			d.err = d.flush()
			continue
		}
		d.add(p[done : done+n])
		done += n
	}
	if d.err == nil && d.size > maxBody {
		d.err = errTooLong
	}
	return done, d.err
}

func (d *Draft) add(p []byte) {
	d.buf = d.s.buffers.grow(d.buf, len(p))
	d.buf = append(d.buf, p...)
	d.crc = crc32.Update(d.crc, castagnoli, p)
	d.size += int64(len(p))
}

// flush moves the buffer to the draft's file, which it makes the first time.
func (d *Draft) flush() error {
	if err := d.s.Failed(); err != nil {
		return err
	}
	if !d.large {
		if err := d.create(); err != nil {
			return err
		}
	}
	if err := d.look(); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(d.buf, d.flushed); err != nil {
		return asFull(err)
	}
	d.flushed += int64(len(d.buf))
	d.buf = d.buf[:0]
	return nil
}

func (d *Draft) create() (err error) {
	d.file, err = d.s.fs.OpenFile(draftName(d.id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return asFull(err)
	}
	d.large = true
	d.looked = -spaceStep
	return nil
}

// look refuses to go on when the disk is nearly full.
func (d *Draft) look() error {
	if d.flushed-d.looked < spaceStep {
		return nil
	}
	d.looked = d.flushed
	return d.s.room(int64(len(d.buf)), d.s.reserve)
}

// seal completes the draft: a large one is durable under its own name afterwards,
// except for the name itself.
func (d *Draft) seal() error {
	if d.err != nil {
		return d.err
	}
	if d.large {
		d.err = d.sealFile()
		return d.err
	}
	putHeader(d.buf, d.id, d.size, d.crc)
	d.buf = append(d.buf, '\n') // buffers leave room for it
	return nil
}

func (d *Draft) sealFile() error {
	d.buf = append(d.buf, '\n')
	if err := d.flush(); err != nil {
		return err
	}
	var header [headerLen]byte
	putHeader(header[:], d.id, d.size, d.crc)
	if _, err := d.file.WriteAt(header[:], 0); err != nil {
		return asFull(err)
	}
	if err := d.s.sync(d.file); err != nil {
		return err
	}
	err := d.file.Close()
	d.file = nil
	return err
}

// Discard drops the draft. After an Update that took it, Discard does nothing.
func (d *Draft) Discard() {
	if d.buf == nil {
		return
	}
	d.release()
	d.remove(draftName(d.id))
}

// release gives back the memory and the file; the draft is of no use then.
func (d *Draft) release() {
	if d.buf != nil {
		d.s.buffers.put(d.buf)
		d.buf = nil
	}
	if d.file != nil {
		_ = d.file.Close() // its bytes are on their way out, or synced already
		d.file = nil
	}
	if d.err == nil {
		d.err = errDraftUsed
	}
}

// remove unlinks a large draft's file. What cannot be removed now, Open removes.
func (d *Draft) remove(name string) {
	if !d.large {
		return
	}
	if err := d.s.fs.Remove(name); err != nil {
		d.s.log.Warn("a dropped message's file stays until the next start", "file", name, "err", err)
	}
}

// asFull marks an error that means that there is no room.
func asFull(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// room returns ErrFull when need octets more would leave less than reserve.
func (s *Store) room(need, reserve int64) error {
	free, err := s.fs.Free()
	if err != nil {
		return err
	}
	return checkRoom(free, need, reserve)
}

func checkRoom(free, need, reserve int64) error {
	if free-need < reserve {
		return fmt.Errorf("%w: %d MiB are free and %d MiB are kept in reserve", ErrFull, free>>20, reserve>>20)
	}
	return nil
}

// sync makes a file durable. A failure is never tried again: the kernel may have
// dropped the pages that it could not write, and would say "done" the second time.
func (s *Store) sync(f File) error {
	s.counts.flushes.Add(1)
	if err := f.Sync(); err != nil {
		s.fail(err)
		return s.Failed()
	}
	return nil
}

func (s *Store) syncBodiesDir() error {
	s.counts.flushes.Add(1)
	if err := s.fs.SyncDir(bodiesDir); err != nil {
		s.fail(err)
		return s.Failed()
	}
	return nil
}

// Buffers come in three sizes, so that the usual message costs little and a long one
// is copied at most twice. Each leaves room for the line end.
var bufferSizes = [...]int{8 << 10, 32 << 10, maxBuffer + 1}

const maxBuffer = headerLen + smallDraft

type buffers struct{ pools [len(bufferSizes)]sync.Pool }

func (p *buffers) get(class int) []byte {
	if b, ok := p.pools[class].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, bufferSizes[class])
}

func (p *buffers) put(b []byte) {
	for class, size := range bufferSizes {
		if cap(b) == size {
			b = b[:0]
			p.pools[class].Put(&b)
		}
	}
}

// grow makes room for n octets and the line end.
func (p *buffers) grow(b []byte, n int) []byte {
	if len(b)+n < cap(b) {
		return b
	}
	class := 0
	for bufferSizes[class] <= len(b)+n {
		class++
	}
	bigger := append(p.get(class), b...)
	p.put(b)
	return bigger
}
