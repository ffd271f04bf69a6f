package imapd

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Two clients of one account have a mailbox of five messages open, and say what clients say in the dialogs: the input
// says who says which of it, with which octet of it changed. Whatever they say, the server must say only what a client
// can follow, answer what is said after it, and leave a store without faults.
func FuzzClients(f *testing.F) {
	h := newDialogHouse(f)
	words := saidInDialogs(f)
	for first := 0; first < len(words); first += 40 {
		var picks []byte
		for i := first; i < min(first+40, len(words)); i++ {
			picks = append(picks, byte(i>>8), byte(i), byte(i%2), 0)
		}
		f.Add(picks)
	}
	f.Fuzz(func(t *testing.T, picks []byte) {
		if len(picks) > 4*200 {
			t.Skip()
		}
		var said []saying
		for ; len(picks) >= 4; picks = picks[4:] {
			text := words[(int(picks[0])<<8|int(picks[1]))%len(words)]
			if other := changed(text, picks[2]>>1, picks[3]); isWhole(other) {
				text = other
			}
			said = append(said, saying{1 + int(picks[2]&1), text})
		}
		dir := h.copy(t)
		defer os.RemoveAll(dir)
		synctest.Test(t, func(t *testing.T) { h.talk(t, dir, said) })
	})
}

// A saying is what a client says at a time: a command, or more or less.
type saying struct {
	client int
	text   string
}

// changed is text with one octet of it changed, if by is not 0.
func changed(text string, where, by byte) string {
	if by == 0 || len(text) <= 2 {
		return text
	}
	b := []byte(text)
	b[int(where)*len(b)/128] ^= by
	return string(b)
}

// isWhole reports whether text has lines and literals to their end, and none that the server must ask for: a session in
// the middle of a command tells nothing, and Wait would wait with it.
func isWhole(text string) bool {
	for text != "" {
		line, rest, ended := strings.Cut(text, "\n")
		if !ended {
			return false
		}
		announced := announcement.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
		text = rest
		if announced == nil {
			continue
		}
		n, err := strconv.Atoi(announced[1])
		if err != nil || announced[2] != "+" || n >= len(text) {
			return false
		}
		text = text[n:]
	}
	return true
}

var announcement = regexp.MustCompile(`\{([0-9]+)(\+?)\}$`)

// saidInDialogs are the commands that clients say in the dialogs, but for COMPRESS: followers read plain text.
func saidInDialogs(f *testing.F) (said []string) {
	for _, file := range dialogFiles(f, *dialogDirs) {
		cases, err := readDialogs(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			for _, s := range c.steps {
				if s.kind != 'C' {
					continue
				}
				if text := spoken(s); isWhole(text) && !strings.Contains(strings.ToUpper(text), "COMPRESS") {
					said = append(said, text)
				}
			}
		}
	}
	slices.Sort(said)
	return slices.Compact(said)
}

// spoken is what a step says, with literals that are not waited for.
func spoken(s dialogStep) string {
	var b strings.Builder
	for i, text := range s.texts[0] {
		text = placeholder.ReplaceAllString(text, "1")
		if i+1 < len(s.texts[0]) && i%2 == 0 {
			n := len(s.texts[0][i+1])
			text = strings.NewReplacer("{n}", fmt.Sprintf("{%d+}", n), "{n+}", fmt.Sprintf("{%d+}", n)).Replace(text) + "\r\n"
		}
		b.WriteString(text)
	}
	return b.String() + "\r\n"
}

var placeholder = regexp.MustCompile(`\{(=|[0-9]+\*|base64:)[^}]*\}`)

// talk has clients say things, and follows what they are told.
func (h *dialogHouse) talk(t *testing.T, dir string, said []saying) {
	cases, err := parseDialogs("fuzz", "== fuzz\n@messages INBOX 5\n@select INBOX\n@2 select INBOX")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(cases[0].begins))
	d := &dialog{t: t, house: h, c: cases[0], conns: map[int]*dialogConn{}, captured: map[string]string{}}
	d.start(dir)
	defer func() {
		if d.stop(); t.Failed() {
			t.Log(strings.Join(d.transcript, "\n"))
		}
	}()
	for _, s := range d.c.steps {
		if err := d.step(s); err != nil {
			t.Fatal(err)
		}
	}
	clients := map[int]*follower{1: newFollower(d.conns[1]), 2: newFollower(d.conns[2])}
	for _, s := range said {
		clients[s.client].say(s.text)
		for n, c := range clients {
			if c.listen(); c.wrong != nil {
				t.Fatal(d.wrong(fmt.Sprintf("client %d after %q", n, s.text), c.wrong))
			}
		}
	}
	for n, c := range clients {
		if err := c.finish(); err != nil {
			t.Fatal(d.wrong(fmt.Sprintf("client %d at the end", n), err))
		}
	}
}

// A follower is a client that believes what it is told: how many messages there are, and their UIDs where known.
type follower struct {
	*dialogConn
	wrong error

	ended bool     // the server has hung up
	bye   bool     // and has said so
	last  []string // response

	lost bool     // it waits to be told of a mailbox
	uids []uint64 // 0 is not known
}

func newFollower(c *dialogConn) *follower {
	return &follower{dialogConn: c, uids: []uint64{1, 2, 3, 4, 5}}
}

// unpredictable are words after which a follower does not know where it is: another mailbox, another layer.
var unpredictable = []string{"SELECT", "EXAMINE", "CLOSE", "UNAUTHENTICATE", "LOGIN", "AUTHENTICATE", "ENABLE"}

func (f *follower) say(line string) {
	up := strings.ToUpper(line)
	f.lost = f.lost || slices.ContainsFunc(unpredictable, func(w string) bool { return strings.Contains(up, w) })
	if !f.ended {
		f.ended = f.send(line) != nil
	}
}

// listen takes up what the server has said, which is whole responses.
func (f *follower) listen() {
	synctest.Wait()
	for f.wrong == nil && f.buffered() {
		r, err := f.read()
		if err != nil {
			f.wrong = fmt.Errorf("half a response: %w", err)
			return
		}
		f.last = r
		f.wrong = f.follow(r)
	}
	select {
	case <-f.r.ended:
		f.ended = true
	default:
	}
}

// follow believes a response, if it can be.
func (f *follower) follow(r []string) error {
	line := r[0]
	if i := strings.IndexFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f }); i >= 0 && !strings.Contains(line, `"`) {
		return fmt.Errorf("a control in %q", line)
	}
	words := strings.SplitN(line, " ", 4)
	switch {
	case words[0] == "+":
		return nil
	case len(words) < 2:
		return fmt.Errorf("no response: %q", line)
	case words[0] != "*":
		return f.status(words[1])
	case words[1] == "BYE":
		f.bye = true
		return nil
	case words[1] == "VANISHED" || words[1] == "OK" && words[2] == "[CLOSED]":
		f.lost = true
		return nil
	case len(words) < 3:
		return nil
	}
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return nil
	}
	return f.number(n, words[2], r)
}

func (f *follower) status(word string) error {
	if word != "OK" && word != "NO" && word != "BAD" {
		return fmt.Errorf("%q ends no command", word)
	}
	return nil
}

// number believes a response about a message or how many there are.
func (f *follower) number(n int, what string, r []string) error {
	switch {
	case what == "EXISTS" && f.lost:
		f.uids, f.lost = make([]uint64, n), false
		return nil
	case f.lost || what == "RECENT" || what == "UIDFETCH":
		return nil
	case what == "EXISTS" && n < len(f.uids):
		return fmt.Errorf("%d messages of %d, and none was expunged", n, len(f.uids))
	case what == "EXISTS":
		f.uids = append(f.uids, make([]uint64, n-len(f.uids))...)
		return nil
	case n < 1 || n > len(f.uids):
		return fmt.Errorf("message %d of %d: %s", n, len(f.uids), what)
	case what == "EXPUNGE":
		f.uids = slices.Delete(f.uids, n-1, n)
		return nil
	case what == "FETCH":
		return f.uid(n, r[0])
	}
	return nil
}

// uid believes the UID that a FETCH response begins with.
func (f *follower) uid(n int, line string) error {
	_, rest, ok := strings.Cut(line, " FETCH (UID ")
	if !ok {
		return nil
	}
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	uid, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return err
	}
	if was := f.uids[n-1]; was != 0 && was != uid {
		return fmt.Errorf("message %d had the UID %d and now has %d", n, was, uid)
	}
	f.uids[n-1] = uid
	for i, other := range f.uids {
		if other != 0 && (i < n-1 && other >= uid || i > n-1 && other <= uid) {
			return fmt.Errorf("the UIDs are out of order: %d", f.uids)
		}
	}
	return nil
}

// finish ends what may be open, and holds the server to answering once more, or to having said goodbye.
func (f *follower) finish() error {
	for _, line := range []string{"*", "DONE", "zz NOOP", "zz NOOP"} {
		f.say(line + "\r\n")
		f.listen()
	}
	switch {
	case f.wrong != nil:
		return f.wrong
	case f.ended && !f.bye:
		return errors.New("the server hung up without a word")
	case f.ended:
		return nil
	case len(f.last) == 0 || !strings.HasPrefix(f.last[0], "zz OK "):
		return fmt.Errorf("a NOOP was answered %q", f.last)
	}
	return nil
}
