package bench

import (
	"bytes"
	"context"
	"strconv"
	"time"
)

// lookAnyway bounds how long a watcher trusts that the server tells of new mail.
const lookAnyway = time.Second

// A watcher finds new mail in one mailbox. Owned by one goroutine.
type watcher struct {
	*imapConn
	*composer
	ledger  *ledger
	poll    time.Duration
	next    int64 // UID from which on mail was not yet looked at
	handled int64 // EXISTS before the last FETCH
}

// run ends with ctx, or with an error of the connection.
func (w *watcher) run(ctx context.Context) error {
	defer w.close()
	for {
		began := time.Now()
		found, err := w.look()
		if err != nil {
			return err
		}
		if found > 0 || w.exists != w.handled {
			if !pause(ctx, w.poll-time.Since(began)) {
				return nil
			}
			continue
		}
		if err := w.waitForMail(ctx); err != nil {
			return err
		}
	}
}

// look fetches the Message-IDs of all mail that has come since.
func (w *watcher) look() (found int, err error) {
	w.handled = w.exists
	first := w.next
	line := "UID FETCH " + strconv.FormatInt(first, 10) + ":* (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"
	err = w.command(line, func() {
		uid, ok := w.fetched()
		if !ok || uid < first { // n:* always names the last message, even below n
			return
		}
		found++
		w.next = max(w.next, uid+1)
		if seq, start, ours := w.parseID(w.lits); ours {
			w.ledger.see(seq, start, time.Now())
		}
	})
	return found, err
}

// fetched is the UID in a FETCH response that carries a header.
func (w *watcher) fetched() (uid int64, ok bool) {
	_, what, ok := w.numbered()
	if !ok || !bytes.HasPrefix(what, []byte("FETCH ")) || !bytes.Contains(what, []byte("BODY[")) {
		return 0, false
	}
	if uid, ok = w.numberAfter("(UID "); ok {
		return uid, true
	}
	return w.numberAfter(" UID ")
}

// waitForMail returns when the server told of new mail, or after a while.
func (w *watcher) waitForMail(ctx context.Context) error {
	if !w.can("IDLE") {
		pause(ctx, w.poll)
		return w.command("NOOP", nil)
	}
	if err := w.idle(); err != nil {
		return err
	}
	until := time.Now().Add(lookAnyway)
	for w.exists == w.handled && time.Now().Before(until) {
		told, err := w.wait(time.Until(until))
		if err != nil {
			return err
		}
		if !told {
			break
		}
		if err := w.read(); err != nil {
			return err
		}
	}
	return w.done()
}
