package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// A segment file is a row of bodies, each with a line before it and a line end after
// it, so that `grep -a '^postroad '` lists an archive and `less` reads it:
//
//	postroad 06a1v7m3k9q2r 000000004096 1a2b3c4d\n
//	(4096 octets)\n
//
// The line has a fixed width; the checksum is CRC-32C of the octets.
const (
	bodiesDir  = "bodies"
	headerMark = "postroad "
	headerLen  = len(headerMark) + idLen + 1 + 12 + 1 + 8 + 1
	// frameLen is what a body takes up besides its octets.
	frameLen = headerLen + 1
	// maxBody is the longest body that the line can state.
	maxBody = 999_999_999_999
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putHeader writes the line that stands before a body into b.
func putHeader(b []byte, id ID, size int64, crc uint32) {
	b = b[:headerLen]
	n := copy(b, headerMark)
	n += copy(b[n:], id.String())
	b[n] = ' '
	for i, v := n+12, size; i > n; i, v = i-1, v/10 {
		b[i] = byte('0' + v%10)
	}
	b[n+13] = ' '
	sum := [4]byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)}
	hex.Encode(b[n+14:], sum[:])
	b[headerLen-1] = '\n'
}

// parseHeader reads what putHeader wrote and takes nothing else.
func parseHeader(b []byte) (id ID, size int64, crc uint32, err error) {
	bad := func(what string) (ID, int64, uint32, error) {
		return 0, 0, 0, errors.New("a body's first line has " + what)
	}
	if len(b) < headerLen || string(b[:len(headerMark)]) != headerMark || b[headerLen-1] != '\n' {
		return bad("another form")
	}
	at := len(headerMark)
	if id, err = ParseID(string(b[at : at+idLen])); err != nil {
		return bad("no id")
	}
	at += idLen
	length, err := strconv.ParseUint(string(b[at+1:at+13]), 10, 63)
	if err != nil || b[at] != ' ' {
		return bad("no length")
	}
	sum, err := strconv.ParseUint(string(b[at+14:at+22]), 16, 32)
	if err != nil || b[at+13] != ' ' {
		return bad("no checksum")
	}
	var same [headerLen]byte
	putHeader(same[:], id, int64(length), uint32(sum))
	if string(same[:]) != string(b[:headerLen]) {
		return bad("another form")
	}
	return id, int64(length), uint32(sum), nil
}

// segmentName is the file of a segment.
func segmentName(number uint64) string { return fmt.Sprintf(bodiesDir+"/%08d", number) }

// parseSegmentName reads a file name below bodies.
func parseSegmentName(name string) (number uint64, ok bool) {
	n, err := strconv.ParseUint(name, 10, 63)
	return n, err == nil && n > 0 && segmentName(n) == bodiesDir+"/"+name
}

// draftName is the file of a large draft until it becomes a segment.
func draftName(id ID) string { return bodiesDir + "/." + id.String() + ".tmp" }

// isDraftName says whether a file name below bodies is a large draft's.
func isDraftName(name string) bool {
	if len(name) != 1+idLen+4 || name[0] != '.' {
		return false
	}
	id, err := ParseID(name[1 : 1+idLen])
	return err == nil && draftName(id) == bodiesDir+"/"+name
}

// A location is where a body lies.
type location struct {
	segment uint64
	offset  int64 // of the first octet, after the line
	size    int64
	crc     uint32
}

// start and end are the body's range in its segment with all that belongs to it.
func (l location) start() int64 { return l.offset - int64(headerLen) }
func (l location) end() int64   { return l.offset + l.size + 1 }

// taken is the room that the body takes up.
func (l location) taken() int64 { return l.size + int64(frameLen) }

// A segment is what the index knows of one file of bodies.
type segment struct {
	number uint64
	own    bool  // it holds one large body and never grows
	end    int64 // all references lie below; the rest of the file is leftover
	live   int64 // octets that live bodies take up
	bodies int64 // live ones

	dirty   bool // its record must be written
	damaged bool // the file is shorter than end, or missing
}
