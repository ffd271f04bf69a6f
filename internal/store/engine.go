package store

import (
	"context"
	"errors"
)

// An engine keeps ordered keys on durable storage: the seam below which bbolt is
// today and a distributed database may be later. One conformance suite tests any.
type engine interface {
	// View runs fn on a consistent view.
	View(fn func(Reader) error) error
	// Update runs fn and commits what it wrote, durably, unless fn returns an error
	// or panics: then nothing has changed. Any other error means that the outcome is
	// unknown until the engine is opened again. Keys and values that fn puts are the
	// engine's until Update returns.
	Update(fn func(writer) error) error
	// Check calls report for everything that is wrong with the engine's own
	// structure. It may run beside other work.
	Check(ctx context.Context, report func(text string)) error
	// Size is the octets that the engine takes on disk.
	Size() int64
	// Close ends the engine; transactions under way end first.
	Close() error
}

// A writer is the engine's side of a Tx.
type writer interface {
	Reader
	Put(key, value []byte)
	Delete(key []byte)
}

// flushesPerCommit is how often an engine's commit waits for the disk: bbolt syncs
// the new pages, then the page with the root.
const flushesPerCommit = 2

// errUnchanged is returned by the committer's function when there is nothing to commit.
var errUnchanged = errors.New("nothing to commit")

// engineFault carries an engine's error through a caller's function, which has no
// way to see it: Reader's methods return no errors.
type engineFault struct{ err error }
