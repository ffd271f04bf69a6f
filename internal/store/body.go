package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Body is an open body. Its bytes never change; it stays readable until Close even
// when the last reference goes. Any number of goroutines.
type Body struct {
	id   ID
	at   location
	file *segmentFile
	s    *Store
}

// lookTwice is how often a body is looked up again when compaction removed the
// segment between the look at the index and the opening of the file.
const lookTwice = 3

// OpenBody opens a body for reading, or returns ErrNoBody. ErrDamaged means that the
// index knows the body and its segment is missing.
func (s *Store) OpenBody(id ID) (*Body, error) {
	var err error
	for range lookTwice {
		var at location
		if at, err = s.locate(id); err != nil {
			return nil, err
		}
		var file *segmentFile
		if file, err = s.files.open(s.fs, at.segment); err == nil {
			return &Body{id, at, file, s}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open body %s: %w", id, err)
		}
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, id, err)
}

// OpenAt is OpenBody of a body that was looked up before, perhaps some time ago. It opens it as b, which is closed or new:
// who reads many needs one.
func (s *Store) OpenAt(b *Body, id ID, p Place) error {
	file, err := s.files.open(s.fs, p.at.segment)
	if errors.Is(err, fs.ErrNotExist) { // it was moved, or is gone
		other, err := s.OpenBody(id)
		if err == nil {
			*b = *other
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("open body %s: %w", id, err)
	}
	*b = Body{id, p.at, file, s}
	return nil
}

// locate reads where a body lies.
func (s *Store) locate(id ID) (at location, err error) {
	err = s.engine.View(func(r Reader) error {
		p, err := NewLookup(r).Place(id)
		at = p.at
		return err
	})
	return at, err
}

// ID is the body's name.
func (b *Body) ID() ID { return b.id }

// Size is the body's length in octets.
func (b *Body) Size() int64 { return b.at.size }

// ReadAt reads as io.ReaderAt says. It does not look at the checksum; Verify does.
// ErrDamaged means that the octets are missing.
func (b *Body) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	rest := b.at.size - off
	if rest <= 0 {
		return 0, io.EOF
	}
	want := min(int64(len(p)), rest)
	n, err := b.file.ReadAt(p[:want], b.at.offset+off)
	switch {
	case int64(n) == want && want < int64(len(p)):
		return n, io.EOF
	case int64(n) == want:
		return n, nil
	case err == nil || errors.Is(err, io.EOF):
		return n, fmt.Errorf("%w: %s: segment %d is cut off", ErrDamaged, b.id, b.at.segment)
	}
	return n, fmt.Errorf("read body %s: %w", b.id, err)
}

// Reader returns a reader of the whole body whose last Read returns ErrDamaged
// instead of io.EOF when the checksum does not match.
func (b *Body) Reader() io.Reader { return &bodyReader{b: b} }

type bodyReader struct {
	b   *Body
	off int64
	crc uint32
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.off == r.b.at.size {
		return 0, r.end()
	}
	n, err := r.b.ReadAt(p, r.off)
	r.crc = crc32.Update(r.crc, castagnoli, p[:n])
	r.off += int64(n)
	if err == io.EOF {
		err = nil // end has the last word
	}
	return n, err
}

func (r *bodyReader) end() error {
	if r.crc != r.b.at.crc {
		return fmt.Errorf("%w: %s: the checksum does not match", ErrDamaged, r.b.id)
	}
	return io.EOF
}

// Verify reads the whole body and returns ErrDamaged when it is not what was stored.
func (b *Body) Verify() error {
	buf := b.s.buffers.get(1)
	defer b.s.buffers.put(buf)
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{b.Reader()}, buf[:cap(buf)])
	return err
}

// Close lets go of the body.
func (b *Body) Close() error { return b.s.files.release(b.file) }

// maxIdleFiles is how many segments stay open while nobody reads them.
const maxIdleFiles = 64

// A fileCache shares open segments among readers.
type fileCache struct {
	mu    sync.Mutex
	files map[uint64]*segmentFile
	uses  uint64 // grows with each use, to find the one unused longest
}

type segmentFile struct {
	File
	number uint64

	// Guarded by the cache's mu.
	users     int
	used      uint64
	forgotten bool // closed by its last user
}

// open returns a segment for reading; release gives it back.
func (c *fileCache) open(fs FS, number uint64) (*segmentFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[number]
	if f == nil {
		file, err := fs.OpenFile(segmentName(number), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		c.makeRoom()
		f = &segmentFile{File: file, number: number}
		c.files[number] = f
	}
	c.uses++
	f.used = c.uses
	f.users++
	return f, nil
}

// makeRoom closes the segment that was unused longest when there are many; mu must be held.
func (c *fileCache) makeRoom() {
	if c.files == nil {
		c.files = map[uint64]*segmentFile{}
	}
	if len(c.files) < maxIdleFiles {
		return
	}
	var oldest *segmentFile
	for _, f := range c.files {
		if f.users == 0 && (oldest == nil || f.used < oldest.used) {
			oldest = f
		}
	}
	if oldest != nil {
		delete(c.files, oldest.number)
		_ = oldest.Close() // only read
	}
}

func (c *fileCache) release(f *segmentFile) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.users--
	if f.users == 0 && f.forgotten {
		return f.Close()
	}
	return nil
}

// forget drops a segment that was removed; those who read it may go on.
func (c *fileCache) forget(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[number]; f != nil {
		c.drop(f)
	}
}

// drop takes a file out of the cache; mu must be held.
func (c *fileCache) drop(f *segmentFile) {
	delete(c.files, f.number)
	f.forgotten = true
	if f.users == 0 {
		_ = f.Close() // only read
	}
}

// close drops all files.
func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		c.drop(f)
	}
}
