package imapd

import (
	"context"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// threadAlgorithms are the algorithms of THREAD (RFC 5256, 3; draft-ietf-morg-inthread, 4).
var threadAlgorithms = map[string]mailbox.Algorithm{
	"ORDEREDSUBJECT": mailbox.OrderedSubject, "REFERENCES": mailbox.ThreadReferences, "REFS": mailbox.ThreadRefs,
}

// thread is THREAD and UID THREAD (RFC 5256, 3).
func (s *session) thread(c *wire.Thread) reply {
	algorithm, known := threadAlgorithms[c.Algorithm]
	if !known {
		return bad(codeClientBug, "the algorithms are ORDEREDSUBJECT, REFERENCES and REFS")
	}
	f, err := s.find(c.Charset, &c.Key, c.UID)
	if err != nil {
		return s.refuse("search", err)
	}
	code := f.limit()
	var threads []mailbox.ThreadNode
	err = f.during(func(ctx context.Context) (err error) {
		if f.count() == 0 {
			return nil // nothing, and not all
		}
		threads, err = f.srv.Mailboxes.Thread(ctx, f.box.ID, f.found, algorithm)
		return err
	})
	if err != nil {
		return s.refuse("find threads", err)
	}
	f.order = []mailbox.UID{} // they come in any order
	f.tellThreads(threads)
	return ok(code, "")
}

// tellThreads is a THREAD response (RFC 5256, 4).
func (f *finding) tellThreads(list []mailbox.ThreadNode) {
	f.out.Raw("* THREAD")
	if len(list) > 0 {
		f.out.Raw(" ")
	}
	w := threadWriter{finding: f, number: f.numbering()}
	for _, n := range list {
		w.write(n)
	}
	f.out.CRLF()
}

// A threadWriter writes threads, which may be as deep as there are messages: it does not recurse.
type threadWriter struct {
	*finding
	number func(mailbox.UID) uint32
	open   []openThread
}

// An openThread is a message whose answers are still to come.
type openThread struct {
	left    uint32 // so many of them
	several bool   // each stands in parentheses
	wrapped bool   // the message itself does
}

// write writes the next message: in parentheses, unless it is the only answer to the one before.
func (w *threadWriter) write(n mailbox.ThreadNode) {
	wrapped := len(w.open) == 0 || w.open[len(w.open)-1].several
	if wrapped {
		w.out.Raw("(")
	} else {
		w.out.Raw(" ")
	}
	if n.UID != 0 {
		w.out.Number(uint64(w.number(n.UID)))
	}
	if n.Children > 1 && n.UID != 0 {
		w.out.Raw(" ")
	}
	w.open = append(w.open, openThread{n.Children, n.Children > 1, wrapped})
	w.close()
}

// close closes what has no more answers to come.
func (w *threadWriter) close() {
	for len(w.open) > 0 {
		last := &w.open[len(w.open)-1]
		if last.left > 0 {
			last.left--
			return
		}
		if last.wrapped {
			w.out.Raw(")")
		}
		w.open = w.open[:len(w.open)-1]
	}
}
