// Package store keeps everything postroad must not lose, in one directory:
//
//	index.db           facts: ordered keys in bbolt, one writer, group commit
//	bodies/00000001    message bytes, appended, each with length and checksum
//	bodies/00000002    the newest shared segment; the only one that still grows
//	bodies/00000003    a large message: a segment of its own, never copied
//	ballast            space given up so that deleting works on a full disk
//
// A message is ours once the index transaction that names its body has committed.
// The body was durable before that: an index entry without a body is damage, a body
// without an index entry is a leftover that Open drops. One process, any number of
// goroutines.
//
// After a failed fsync or commit nobody knows what the disk holds. The store then
// refuses every write with ErrFailed, keeps serving reads, and is healed by closing
// and opening it. A full disk is no failure: new bodies get ErrFull, the rest works, at
// the end from pages that the index has freed and from the ballast. Only when even those
// are used up does an index commit fail, and with it the store.
package store

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that callers branch on.
var (
	// ErrFull means that the disk has too little room for another body. Nothing
	// was written; deleting still works, and so does writing once there is room.
	ErrFull = errors.New("the disk is nearly full")
	// ErrFailed means that an fsync or a commit failed earlier: what the disk holds
	// is unknown, so nothing more is written until the store is opened again.
	ErrFailed = errors.New("the store has failed and must be reopened")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("the store is closed")
	// ErrNoBody means that no body has this ID.
	ErrNoBody = errors.New("no such body")
	// ErrDamaged means that a body's bytes are missing or do not match their checksum.
	ErrDamaged = errors.New("damaged body")
	// ErrIndex means that index.db cannot be read.
	ErrIndex = errors.New("the index is damaged")
	// ErrFormat means that another version of postroad wrote the store. Nothing was
	// changed.
	ErrFormat = errors.New("the data directory was written by another version of postroad")
	// ErrLocked means that another process has the store open.
	ErrLocked = errors.New("the data directory is in use by another process")
)

// Options are Open's settings; the zero value is ready for use.
type Options struct {
	FS          FS               // file layer of the bodies; nil is the operating system's
	Now         func() time.Time // nil is time.Now
	SegmentSize int64            // octets after which a segment is sealed; 0 is 64 MiB
	Reserve     int64            // free octets kept on the disk: below, bodies get ErrFull; 0 is 64 MiB
	Log         *slog.Logger     // nil discards

	engine func() (engine, error) // a test's engine in place of bbolt
}

// Reader reads the index as it was when the transaction began. Keys are ordered as
// bytes. Slices are valid until the transaction's function returns and must not be
// changed. An error of the engine ends the transaction: View or Update returns it.
type Reader interface {
	// Get returns the value of key, or nil when there is none.
	Get(key []byte) []byte
	// Scan yields the entries with from <= key < to in ascending order; a nil to
	// is the end of the index. Nothing may be written while a scan is going on.
	Scan(from, to []byte) iter.Seq2[[]byte, []byte]
	// ScanBack yields the same entries in descending order.
	ScanBack(from, to []byte) iter.Seq2[[]byte, []byte]
}

// Tx is one atomic change of the index. It sees its own writes.
type Tx interface {
	Reader
	// Put sets key to value. Both belong to the transaction until it ends. The
	// tables "bo", "bn", "sg" and "sm" are the store's own; keys hold 1 to 32,768 octets.
	Put(key, value []byte)
	// Delete removes key, if it is there.
	Delete(key []byte)
	// Ref adds a reference to a body, Unref takes one away; a body without
	// references is dropped when the transaction commits. A body that does not
	// exist makes the transaction fail with ErrNoBody.
	Ref(id ID)
	Unref(id ID)
	// SetNote keeps octets beside a body until the body is dropped: what was worked
	// out from it. The last note stays; an empty one is none. The octets belong to the
	// transaction until it ends. ErrNoBody as with Ref.
	SetNote(id ID, note []byte)
	// OnCommit has fn called after the commit is durable, before Update returns.
	// It must be quick, must not block and must not use the store.
	OnCommit(fn func())
}

// A Lookup finds what the index has of many bodies; those in rising order are found fastest. It is of use as long as its
// Reader is. One goroutine.
type Lookup struct {
	r   Reader
	key Key // of the last one; its memory is used again
}

// NewLookup returns a Lookup in r.
func NewLookup(r Reader) *Lookup { return &Lookup{r: r, key: make(Key, 0, 16)} }

func (l *Lookup) get(table string, id ID) []byte {
	l.key = append(l.key[:0], table...).Uint(uint64(id))
	return l.r.Get(l.key)
}

// Note returns the note of a body; none is empty. ErrNoBody. The octets are valid as long as the Reader's are.
func (l *Lookup) Note(id ID) ([]byte, error) {
	if t, ok := l.r.(*tx); ok {
		return t.note(id)
	}
	note := l.get(tableNote, id)
	if note == nil && l.get(tableBody, id) == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoBody, id)
	}
	return note, nil
}

// Note is Lookup.Note of one body.
func Note(r Reader, id ID) ([]byte, error) { return NewLookup(r).Note(id) }

// A Place is where a body lay when it was looked up, for OpenAt.
type Place struct{ at location }

// Place looks up a body. ErrNoBody; ErrRecord when the body's record cannot be read.
func (l *Lookup) Place(id ID) (Place, error) {
	v := l.get(tableBody, id)
	if v == nil {
		return Place{}, fmt.Errorf("%w: %s", ErrNoBody, id)
	}
	rec, err := parseBody(v)
	if err != nil {
		err = fmt.Errorf("body %s: %w", id, err)
	}
	return Place{rec.location}, err
}

// Store is an open data directory.
type Store struct {
	// Set by Open, never changed.
	dir         string
	fs          FS
	now         func() time.Time
	log         *slog.Logger
	segmentSize int64
	reserve     int64
	engine      engine
	unlock      func() error

	last    atomic.Uint64 // the last ID handed out
	failure atomic.Pointer[failure]
	queue   queue
	ended   chan struct{} // closed when the committer has ended
	files   fileCache
	buffers buffers
	counts  counters

	// Owned by the committer; no lock.
	out     appender
	batch   batch
	super   superRecord
	ballast bool // the ballast file is there

	mu       sync.Mutex // guards segments; the committer alone changes them
	segments map[uint64]*segment

	compacting sync.Mutex // one Compact at a time
	closing    sync.Once
	closed     error
}

type failure struct{ err error }

type counters struct{ commits, updates, flushes atomic.Uint64 }

// View runs fn on a consistent view of the index. It must be short and must not
// write to a connection: an open view makes the index grow.
func (s *Store) View(fn func(Reader) error) error { return s.engine.View(fn) }

// Update commits the drafts and the changes of fn, together with those of others
// that wait at the same time, and returns when all is on disk. When fn returns an
// error its changes are undone, its drafts are dropped, and Update returns that
// error; the others commit. When fn panics its changes are undone and Update panics.
// fn may run more than once, runs on another goroutine, and must not block. fn must
// Ref each draft's ID to keep the body. The drafts are of no use afterwards.
//
// In this order, for all updates of a batch together:
//
//	large drafts     written, header, fdatasync: by their own caller, beforehand
//	rename, fsync    large drafts become segments; one fsync of the directory
//	append           small drafts, one write to the growing segment
//	fdatasync        of that segment
//	index commit     the commit point: fdatasync of the new pages, then of the root
//	OnCommit, wake
func (s *Store) Update(fn func(Tx) error, drafts ...*Draft) error {
	return s.submit(&op{fn: fn, drafts: drafts, done: make(chan struct{})})
}

// UpdateSoon is Update for work that no peer waits for: it commits together with the
// next Update, or alone after 2 ms without one. Under load it costs no commit of its own.
func (s *Store) UpdateSoon(fn func(Tx) error, drafts ...*Draft) error {
	return s.submit(&op{fn: fn, drafts: drafts, soon: true, done: make(chan struct{})})
}

func (s *Store) submit(o *op) error {
	if err := s.Failed(); err != nil {
		o.discard()
		return err
	}
	if err := o.seal(); err != nil {
		o.discard()
		return err
	}
	if !s.queue.add(o) {
		o.discard()
		return ErrClosed
	}
	<-o.done
	if o.panicked != nil {
		panic(o.panicked)
	}
	return o.err
}

// Failed returns the error that made the store refuse writes, or nil.
func (s *Store) Failed() error {
	if f := s.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail makes the store refuse writes from now on.
func (s *Store) fail(cause error) {
	f := &failure{fmt.Errorf("%w: %w", ErrFailed, cause)}
	if s.failure.CompareAndSwap(nil, f) {
		s.log.Error("the store refuses writes until it is opened again", "err", cause)
	}
}

// Stats are figures for status and tests.
type Stats struct {
	Bodies                    int64
	LiveOctets, DeadOctets    int64
	Segments                  int
	IndexOctets               int64
	FreeOctets                int64 // on the disk; -1 when it cannot be told
	Commits, Updates, Flushes uint64
}

// Stats returns the store's present figures.
func (s *Store) Stats() Stats {
	st := Stats{
		IndexOctets: s.engine.Size(),
		Commits:     s.counts.commits.Load(),
		Updates:     s.counts.updates.Load(),
		Flushes:     s.counts.flushes.Load(),
	}
	var err error
	if st.FreeOctets, err = s.fs.Free(); err != nil {
		st.FreeOctets = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Segments = len(s.segments)
	for _, g := range s.segments {
		st.Bodies += g.bodies
		st.LiveOctets += g.live
		st.DeadOctets += g.end - g.live
	}
	return st
}
