package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	indexName = "index.db"
	// boltMap is the address space set aside for the index. While the file fits, bbolt
	// never has to move its map, for which it would wait until all views have ended.
	boltMap = min(64<<30, math.MaxInt)
	// boltFill packs pages well: most keys are written in ascending order.
	boltFill = 0.9
	// lockWait is how long the process before us may take to end.
	lockWait = 2 * time.Second
)

var boltBucket = []byte("postroad")

// boltEngine keeps the keys in one bucket of a bbolt file.
type boltEngine struct {
	db   *bbolt.DB
	file *os.File // the same file, for Check and lay
	laid int64    // where the zeros end that were laid ahead
}

// openBolt opens or makes the index in dir. A damaged file is left as it is.
func openBolt(dir string) (*boltEngine, error) {
	path := filepath.Join(dir, indexName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createBolt(dir); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
	}
	if err := verifyBoltFile(path); err != nil {
		if _, unread := errors.AsType[*fs.PathError](err); unread {
			return nil, err // what cannot be read is not known to be damaged
		}
		return nil, damagedIndex(path, err)
	}
	db, err := openBoltFile(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltEngine{db: db, file: file}, nil
}

// createBolt makes an empty index. A crash leaves none or a whole one:
//
//	index.db.tmp   made with its bucket; bbolt syncs it
//	rename         index.db.tmp to index.db
//	fsync dir      the name is on disk
func createBolt(dir string) error {
	tmp := filepath.Join(dir, indexName+".tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(tmp, 0o600, boltOptions(0))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(boltBucket)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, indexName)); err != nil {
		return err
	}
	return syncDir(dir)
}

func boltOptions(mapSize int) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         lockWait,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true,
		NoStatistics:    true,
		InitialMmapSize: mapSize,
	}
}

// openBoltFile opens an existing file, with a small map where the address space is limited.
func openBoltFile(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagedIndex(path, fmt.Errorf("%v", p))
		}
	}()
	for _, size := range []int{boltMap, 1 << 30, 0} {
		db, err = bbolt.Open(path, 0o600, boltOptions(size))
		if err == nil || errors.Is(err, bolterrors.ErrTimeout) {
			break
		}
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	case err != nil:
		if _, named := errors.AsType[*fs.PathError](err); named {
			return nil, err
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

func damagedIndex(path string, err error) error {
	return fmt.Errorf("%w: %s: %v (nothing was changed; restore the data directory from a backup, "+
		"or copy it and see what `bbolt surgery` can save)", ErrIndex, path, err)
}

// View runs fn on a snapshot.
func (e *boltEngine) View(fn func(Reader) error) (err error) {
	tx, err := e.db.Begin(false)
	if err != nil {
		return closedError(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { err = caught(recover(), err) }()
	defer func() { _ = tx.Rollback() }()
	b := tx.Bucket(boltBucket)
	if b == nil {
		return fmt.Errorf("%w: the bucket %q is missing", ErrIndex, boltBucket)
	}
	return fn(newBoltTx(b))
}

// Update runs fn in bbolt's one write transaction.
func (e *boltEngine) Update(fn func(writer) error) (err error) {
	tx, err := e.db.Begin(true)
	if err != nil {
		return closedError(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { err = caught(recover(), err) }()
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	b := tx.Bucket(boltBucket)
	if b == nil {
		return fmt.Errorf("%w: the bucket %q is missing", ErrIndex, boltBucket)
	}
	b.FillPercent = boltFill
	e.lay(tx.Size())
	if err := fn(newBoltTx(b)); err != nil {
		return err
	}
	return commitBolt(tx)
}

// lay fills the file with zeros ahead of the pages in use, as the growing segment is: see
// layAhead. It is called while no other writes. Without room for that bbolt asks for its own.
func (e *boltEngine) lay(used int64) {
	if used+layAhead/8 <= e.laid {
		return
	}
	if err := writeZeros(e.file, max(e.laid, used), used+layAhead); err == nil {
		e.laid = used + layAhead
	}
}

func commitBolt(tx *bbolt.Tx) error {
	defer engineFaults()
	return tx.Commit()
}

// caught turns an engine's fault into an error; other panics go on.
func caught(p any, err error) error {
	switch f := p.(type) {
	case nil:
		return err
	case engineFault:
		return f.err
	case interface{ Addr() uintptr }: // the mapped file is shorter than it was, or unreadable
		return fmt.Errorf("%w: its file cannot be read: %v", ErrIndex, f)
	}
	panic(p)
}

func closedError(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Check walks the tree as of now.
func (e *boltEngine) Check(ctx context.Context, report func(string)) error {
	tx, err := e.db.Begin(false)
	if err != nil {
		return closedError(err)
	}
	defer func() { _ = tx.Rollback() }()
	b := tx.Bucket(boltBucket)
	if b == nil {
		report(fmt.Sprintf("the bucket %q is missing", boltBucket))
		return nil
	}
	if b.Root() == 0 {
		return nil // still inside its parent's page, which Open looked at
	}
	pageSize := int64(e.db.Info().PageSize)
	v := boltVerifier{file: e.file, pageSize: pageSize, pages: uint64(tx.Size() / pageSize), ctx: ctx}
	if err := v.tree(uint64(b.Root()), false); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(err.Error())
	}
	return nil
}

// Size is the length of the part of the file that has been used.
func (e *boltEngine) Size() int64 {
	tx, err := e.db.Begin(false)
	if err != nil {
		return 0
	}
	defer func() { _ = tx.Rollback() }()
	return tx.Size()
}

// Close waits for transactions and lets go of the file.
func (e *boltEngine) Close() error { return errors.Join(e.db.Close(), e.file.Close()) }

// boltTx is a bucket within a transaction.
type boltTx struct {
	b      *bbolt.Bucket
	cursor *bbolt.Cursor // of Get and Delete; to make one takes longer than to use it
	last   *[]byte       // the key at which cursor is, if Get left it there; nil where something is written
}

func newBoltTx(b *bbolt.Bucket) boltTx {
	t := boltTx{b: b, cursor: b.Cursor()}
	if !b.Writable() {
		t.last = new([]byte)
	}
	return t
}

// Get looks at the next key first when that may be the one: many are asked for in order.
func (t boltTx) Get(key []byte) []byte {
	defer engineFaults()
	if t.last != nil && precedes(*t.last, key) {
		k, v := t.cursor.Next()
		if *t.last = k; bytes.Equal(k, key) {
			return v
		}
	}
	k, v := t.cursor.Seek(key)
	if !bytes.Equal(k, key) {
		k, v = nil, nil
	}
	if t.last != nil {
		*t.last = k
	}
	return v
}

// precedes says whether two keys are of one table and one kind, and in order.
func precedes(a, b []byte) bool {
	return len(a) == len(b) && len(a) > 2 && a[0] == b[0] && a[1] == b[1] && bytes.Compare(a, b) < 0
}

func (t boltTx) Put(key, value []byte) {
	defer engineFaults()
	if value == nil {
		value = []byte{} // nil would read as "none" within the transaction
	}
	if err := t.b.Put(key, value); err != nil {
		panic(engineFault{err})
	}
}

func (t boltTx) Delete(key []byte) {
	defer engineFaults()
	if k, _ := t.cursor.Seek(key); !bytes.Equal(k, key) {
		return
	}
	if err := t.cursor.Delete(); err != nil {
		panic(engineFault{err})
	}
}

// engineFaults marks a panic of bbolt's as the engine's, so that it is not taken
// for one of the caller's function. It is deferred round each call into bbolt.
func engineFaults() {
	p := recover()
	if p == nil {
		return
	}
	if f, ok := p.(engineFault); ok {
		panic(f)
	}
	panic(engineFault{fmt.Errorf("%w: %v", ErrIndex, p)})
}

func (t boltTx) Scan(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := boltCursor{t.b.Cursor()}
		for k, v := c.seek(from); k != nil && before(k, to); k, v = c.next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

func (t boltTx) ScanBack(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := boltCursor{t.b.Cursor()}
		for k, v := c.lastBefore(to); k != nil && bytes.Compare(k, from) >= 0; k, v = c.prev(k) {
			if !yield(k, v) {
				return
			}
		}
	}
}

// before says whether k lies below the end of a scan; nil is no end.
func before(k, to []byte) bool { return to == nil || bytes.Compare(k, to) < 0 }

type boltCursor struct{ c *bbolt.Cursor }

func (c boltCursor) seek(key []byte) ([]byte, []byte) {
	defer engineFaults()
	return c.c.Seek(key)
}

func (c boltCursor) next() ([]byte, []byte) {
	defer engineFaults()
	return c.c.Next()
}

func (c boltCursor) lastBefore(to []byte) ([]byte, []byte) {
	defer engineFaults()
	if to == nil {
		return c.c.Last()
	}
	if k, _ := c.c.Seek(to); k == nil {
		return c.c.Last()
	}
	return c.prev(to)
}

// prev steps back from key. bbolt's Prev says "none" when it comes upon a page that
// this transaction has emptied, so that answer is believed only at the first key.
func (c boltCursor) prev(key []byte) ([]byte, []byte) {
	defer engineFaults()
	k, v := c.c.Prev()
	if k != nil {
		return k, v
	}
	first, _ := c.c.Bucket().Cursor().First()
	for k == nil && first != nil && bytes.Compare(first, key) < 0 {
		k, v = c.c.Prev()
	}
	return k, v
}
