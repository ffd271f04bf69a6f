package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: on a damaged one it panics, in a goroutine of its own where
// nobody can recover, follows a page into itself until the stack is full, or makes a
// new database of an empty file. So the file is read here first, by plain reads, page
// by page as bbolt would; what passes is safe to open.

const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	boltHeader   = 16 // id 8, flags 2, count 2, overflow 4
	boltElement  = 16
	boltMetaSize = 64 // after the header; its last 8 are the checksum
	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltIsBucket = 0x01
	boltMaxDepth = 64
	boltMaxPage  = 1 << 30
)

// boltMeta is one of the two root pages.
type boltMeta struct {
	pageSize          int64
	root, pages, txid uint64
}

// verifyBoltFile says what is wrong with the file at path, or nil.
func verifyBoltFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	m, err := newestBoltMeta(file)
	if err != nil {
		return err
	}
	if need := int64(m.pages) * m.pageSize; m.pages > uint64(st.Size()) || need > st.Size() {
		return fmt.Errorf("it is cut off: %d octets long, and %d pages of %d in use", st.Size(), m.pages, m.pageSize)
	}
	v := boltVerifier{file: file, pageSize: m.pageSize, pages: m.pages, ctx: context.Background()}
	return v.tree(m.root, true)
}

// newestBoltMeta returns the valid root page of the later transaction. The page size
// is in the page itself, so the second one is looked for at each possible size.
func newestBoltMeta(file io.ReaderAt) (best boltMeta, err error) {
	found := false
	for at := int64(0); at <= 64<<10; at = max(at*2, 1024) {
		m, ok := readBoltMeta(file, at)
		if ok && (at == 0 || at == m.pageSize) && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	if !found {
		return best, errors.New("both root pages are unreadable")
	}
	return best, nil
}

func readBoltMeta(file io.ReaderAt, at int64) (boltMeta, bool) {
	var b [boltHeader + boltMetaSize]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		return boltMeta{}, false
	}
	f, e := b[boltHeader:], binary.NativeEndian
	h := fnv.New64a()
	h.Write(f[:boltMetaSize-8])
	if e.Uint32(f) != boltMagic || e.Uint32(f[4:]) != boltVersion || e.Uint64(f[56:]) != h.Sum64() {
		return boltMeta{}, false
	}
	m := boltMeta{pageSize: int64(e.Uint32(f[8:])), root: e.Uint64(f[16:]), pages: e.Uint64(f[40:]), txid: e.Uint64(f[48:])}
	return m, m.pageSize >= 1024 && m.pageSize <= 64<<10 && m.pageSize&(m.pageSize-1) == 0
}

// boltVerifier walks the pages of a tree that nobody changes meanwhile.
type boltVerifier struct {
	file     io.ReaderAt
	pageSize int64
	pages    uint64 // in use; every page number is below
	ctx      context.Context

	seen []uint64 // one bit for each page
	buf  []byte
}

// tree walks the tree at root; in the outermost one the entry of our bucket leads to the next.
func (v *boltVerifier) tree(root uint64, outermost bool) error {
	if v.seen == nil {
		v.seen = make([]uint64, v.pages/64+1)
	}
	inner, err := v.walk(root, nil, nil, 0, outermost)
	if err != nil || !outermost {
		return err
	}
	if inner == nil {
		return fmt.Errorf("the bucket %q is missing", boltBucket)
	}
	if r := binary.NativeEndian.Uint64(inner); r != 0 {
		return v.tree(r, false)
	}
	page := inner[16:] // a small bucket lies within its entry
	if len(page) < boltHeader || binary.NativeEndian.Uint16(page[8:]) != boltLeaf {
		return errors.New("the bucket is not a leaf")
	}
	_, err = v.leaf(page, nil, nil, false)
	return err
}

// walk reads the page id, whose keys lie in [low, high), and all below it. In the
// outermost tree it returns the value of our bucket's entry.
func (v *boltVerifier) walk(id uint64, low, high []byte, depth int, outermost bool) ([]byte, error) {
	if depth > boltMaxDepth {
		return nil, fmt.Errorf("page %d lies too deep", id)
	}
	page, err := v.page(id)
	if err != nil {
		return nil, err
	}
	switch binary.NativeEndian.Uint16(page[8:]) {
	case boltLeaf:
		inner, err := v.leaf(page, low, high, outermost)
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", id, err)
		}
		return bytes.Clone(inner), nil
	case boltBranch:
		return v.branch(bytes.Clone(page), id, low, high, depth, outermost)
	}
	return nil, fmt.Errorf("page %d is of no known kind", id)
}

// page reads one page with its overflow; it is valid until the next call.
func (v *boltVerifier) page(id uint64) ([]byte, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	if id < 2 || id >= v.pages {
		return nil, fmt.Errorf("page %d is out of range", id)
	}
	var head [boltHeader]byte
	if _, err := v.file.ReadAt(head[:], int64(id)*v.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if own := binary.NativeEndian.Uint64(head[:]); own != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, own)
	}
	length := int64(more+1) * v.pageSize
	if id+more >= v.pages || length > boltMaxPage {
		return nil, fmt.Errorf("page %d is too long", id)
	}
	for i := id; i <= id+more; i++ {
		if v.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is in use twice", i)
		}
		v.seen[i/64] |= 1 << (i % 64)
	}
	if int64(cap(v.buf)) < length {
		v.buf = make([]byte, length)
	}
	v.buf = v.buf[:length]
	if _, err := v.file.ReadAt(v.buf, int64(id)*v.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return v.buf, nil
}

// branch checks the keys of a branch page and walks its children.
func (v *boltVerifier) branch(page []byte, id uint64, low, high []byte, depth int, outermost bool) (inner []byte, err error) {
	e := binary.NativeEndian
	n := int(e.Uint16(page[10:]))
	if n == 0 {
		return nil, fmt.Errorf("page %d: a branch without children", id)
	}
	keys := make([][]byte, n)
	children := make([]uint64, n)
	for i := range n {
		at := boltHeader + i*boltElement
		if at+boltElement > len(page) {
			return nil, fmt.Errorf("page %d: too many entries", id)
		}
		keys[i], err = boltSlice(page, at, e.Uint32(page[at:]), e.Uint32(page[at+4:]))
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", id, err)
		}
		children[i] = e.Uint64(page[at+8:])
		if (i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0) || !within(keys[i], low, high) {
			return nil, fmt.Errorf("page %d: keys out of order", id)
		}
	}
	for i, child := range children {
		end := high
		if i+1 < n {
			end = keys[i+1]
		}
		found, err := v.walk(child, keys[i], end, depth+1, outermost)
		if err != nil {
			return nil, err
		}
		if found != nil {
			inner = found
		}
	}
	return inner, nil
}

// leaf checks the entries of a leaf page.
func (v *boltVerifier) leaf(page, low, high []byte, outermost bool) (inner []byte, err error) {
	e := binary.NativeEndian
	var last []byte
	for i := range int(e.Uint16(page[10:])) {
		at := boltHeader + i*boltElement
		if at+boltElement > len(page) {
			return nil, errors.New("too many entries")
		}
		flags, pos, ksize, vsize := e.Uint32(page[at:]), e.Uint32(page[at+4:]), e.Uint32(page[at+8:]), e.Uint32(page[at+12:])
		key, err := boltSlice(page, at, pos, ksize)
		if err != nil {
			return nil, err
		}
		value, err := boltSlice(page, at, pos+ksize, vsize)
		if err != nil || pos+ksize < pos {
			return nil, errors.New("an entry reaches beyond its page")
		}
		if len(key) == 0 || (i > 0 && bytes.Compare(last, key) >= 0) || !within(key, low, high) {
			return nil, errors.New("keys out of order")
		}
		last = key
		switch isBucket := flags&boltIsBucket != 0; {
		case isBucket != outermost:
			return nil, errors.New("an entry of the wrong kind")
		case isBucket && len(value) < 16:
			return nil, errors.New("a bucket without a root")
		case isBucket && bytes.Equal(key, boltBucket):
			inner = value
		case isBucket:
			return nil, fmt.Errorf("an unknown bucket %q", key)
		}
	}
	return inner, nil
}

// within says whether k lies in [low, high); a nil high is no end.
func within(k, low, high []byte) bool { return bytes.Compare(k, low) >= 0 && before(k, high) }

func boltSlice(page []byte, at int, pos, size uint32) ([]byte, error) {
	from := int64(at) + int64(pos)
	if from+int64(size) > int64(len(page)) {
		return nil, errors.New("an entry reaches beyond its page")
	}
	return page[from : from+int64(size)], nil
}
