package listentest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Book is what somebody writes while a test reads it: a log, or what a program says. The zero value is ready for use.
type Book struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{} // closed by the next Write; nil when nobody waits
}

// Write is io.Writer's.
func (b *Book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wrote != nil {
		close(b.wrote)
		b.wrote = nil
	}
	return b.text.Write(p)
}

// String is all that was written and not taken.
func (b *Book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Take returns what was written since the last Take.
func (b *Book) Take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.text.String()
	b.text.Reset()
	return s
}

// Count returns how often the words are there.
func (b *Book) Count(words string) int { return strings.Count(b.String(), words) }

// Has reports whether the words are there.
func (b *Book) Has(words string) bool { return b.Count(words) > 0 }

// Await returns when the words are there n times, and fails the test when a minute has passed in which nothing was written.
func (b *Book) Await(t testing.TB, n int, words string) {
	t.Helper()
	for {
		b.mu.Lock()
		there := strings.Count(b.text.String(), words) >= n
		if !there && b.wrote == nil {
			b.wrote = make(chan struct{})
		}
		wrote := b.wrote
		b.mu.Unlock()
		if there {
			return
		}
		select {
		case <-wrote:
		case <-time.After(time.Minute):
			t.Fatalf("waited in vain for %q, %d times, in\n%s", words, n, b.String())
		}
	}
}
