package mailbox

import (
	"fmt"
	"testing"

	"postroad/internal/store"
)

// mail is a message with an id, and fields besides.
func mail(id, fields string) string {
	return "Message-ID: <" + id + "@x.test>\r\n" + fields + "Subject: x\r\n\r\n"
}

func TestThreadID(t *testing.T) {
	h := open(t, Options{})
	id, other := h.box("a").ID, h.box("b").ID
	thread := func(text string) string {
		t.Helper()
		m, err := h.Message(id, h.append(id, text))
		h.must(err)
		return m.ThreadID()
	}
	root := thread(mail("1", ""))
	for _, c := range []struct {
		what, text string
		same       bool
	}{
		{"a reply", mail("2", "References: <1@x.test>\r\n"), true},
		{"a reply to it", mail("3", "References: <1@x.test> <2@x.test>\r\n"), true},
		{"a reply to that, which names no other", mail("4", "In-Reply-To: <3@x.test>\r\n"), true},
		{"and another", mail("5", "In-Reply-To: <4@x.test>\r\n"), true},
		{"one that has lost the first", mail("6", "References: <4@x.test> <5@x.test>\r\n"), true},
		{"the same message once more", mail("1", ""), true},
		{"another message", mail("9", ""), false},
		{"a reply to what is not here", mail("10", "In-Reply-To: <8@x.test>\r\n"), false},
		{"one without an id", "Subject: x\r\n\r\n", false},
	} {
		if got := thread(c.text); (got == root) != c.same {
			t.Errorf("%s: %s, and the first has %s", c.what, got, root)
		}
	}
	one, another := thread("Subject: x\r\n\r\n"), thread("Subject: x\r\n\r\n")
	if one == another {
		t.Error("two messages that name none have one thread")
	}
	late := thread(mail("11", "In-Reply-To: <12@x.test>\r\n"))
	if thread(mail("12", "")) != late {
		t.Error("a message that comes after its answer has another thread")
	}
	_, pairs, err := h.Copy(t.Context(), id, set(1), other)
	h.must(err)
	copied, err := h.Message(other, pairs[0].To)
	h.must(err)
	first, err := h.Message(id, 1)
	h.must(err)
	if copied.ThreadID() != root || copied.EmailID() != first.EmailID() {
		t.Error("a copy has another EMAILID or THREADID")
	}
	_, _, err = h.Move(t.Context(), other, nil, id)
	h.must(err)
	if list := h.all(id); list[len(list)-1].ThreadID() != root {
		t.Error("a message that was moved has another THREADID")
	}
	h.must(h.RemoveAll(t.Context(), owner))
	h.must(h.st.View(func(r store.Reader) error {
		for range r.Scan([]byte("mt"), []byte("mu")) {
			t.Error("something is left of the threads of an account without mailboxes")
		}
		return nil
	}))
}

// The table of threads is bounded: what is old goes.
func TestThreadsAreBounded(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	entries := func() (n int) {
		h.must(h.st.View(func(r store.Reader) error {
			n = 0
			for range r.Scan([]byte("mt"), []byte("mu")) {
				n++
			}
			return nil
		}))
		return n
	}
	reply := func(n int) { h.append(id, mail(fmt.Sprint("r", n), "References: <1@x.test>\r\n")) }
	for n := range 100 {
		reply(n)
	}
	later := func(by int64) {
		h.must(h.st.Update(func(tx store.Tx) error { return changeUsage(tx, owner, usage{threads: by}) }))
	}
	if entries() != 100 {
		t.Errorf("%d entries", entries())
	}
	later(2 * generation)
	for n := range 10 {
		reply(1000 + n)
	}
	if entries() != 10 {
		t.Errorf("%d entries of two generations", entries())
	}
}
