package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/imaptest"
)

// What a fuzzed session begins with, as bits of its first octet.
const (
	fuzzLogin    = 1 << iota // logged in
	fuzzSelect               // and INBOX selected
	fuzzWatched              // another session idles on INBOX
	fuzzUnframed             // the octets are sent as they are, all at once
)

// FuzzSession plays a client that frames its commands well, whatever stands in them: each gets exactly one tagged answer,
// or an untagged BAD when its tag is none. Everything that the server says is a response by the grammar, little of it to a
// stranger, and no more than the mailbox can account for. Unframed octets get well-formed responses, too. A panic, or
// an error in the log, fails by itself.
func FuzzSession(f *testing.F) {
	h := newDialogHouse(f)
	const one = 9 // of so many cases: a short campaign should get beyond its seeds
	n := 0
	for _, file := range dialogFiles(f, "testdata/dialog") {
		cases, err := readDialogs(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			if n++; n%one > 0 {
				continue
			}
			f.Add(fuzzState(&c), fuzzInput(&c))
		}
	}
	f.Fuzz(func(t *testing.T, state byte, input []byte) {
		if len(input) > 64<<10 {
			return
		}
		dir := h.copy(t)
		synctest.Test(t, func(t *testing.T) { h.fuzz(t, dir, state, input) })
	})
}

// fuzzState is the state in which a case has its first connection.
func fuzzState(c *dialogCase) (state byte) {
	for _, s := range c.steps {
		if s.kind == '@' && s.verb() == "select" {
			state |= fuzzLogin | fuzzSelect
		}
		if s.kind == '@' && s.verb() == "login" {
			state |= fuzzLogin
		}
		if s.conn > 1 {
			state |= fuzzWatched
		}
	}
	return state
}

// Before a literal of a fuzzed command stands one of these octets and then its length.
const (
	fuzzLiteral  = 0xF0
	fuzzNonSync  = 0xF1
	fuzzLiteral8 = 0xF2
)

// fuzzInput is what a case's first client says: commands, each a line.
func fuzzInput(c *dialogCase) (input []byte) {
	d := &dialog{captured: map[string]string{}}
	for _, s := range c.steps {
		if s.kind != 'C' || s.conn != 1 {
			continue
		}
		for i, piece := range s.texts[0] {
			text, err := d.expand(piece)
			switch {
			case err != nil: // it uses what was captured
				text = "1"
			case i%2 == 1:
				text = text[:min(len(text), 255)]
				input = append(input, byte(len(text)))
			case i+1 < len(s.texts[0]):
				text = fuzzAnnounced(text)
			default:
				text = strings.ReplaceAll(text, "\r\n", "\n")
			}
			input = append(input, text...)
		}
		input = append(input, '\n')
	}
	return input
}

func fuzzAnnounced(text string) string {
	for announcement, octet := range map[string]byte{"~{n}": fuzzLiteral8, "{n}": fuzzLiteral, "{n+}": fuzzNonSync} {
		if rest, ok := strings.CutSuffix(text, announcement); ok {
			return rest + string([]byte{octet})
		}
	}
	return text
}

// A fuzzedPiece is text, and the literal after it.
type fuzzedPiece struct {
	text    string
	literal []byte
	octet   byte // how the literal is announced; 0 for none
}

// fuzzCommands takes input apart into commands.
func fuzzCommands(input []byte) (commands [][]fuzzedPiece) {
	for len(input) > 0 {
		var command []fuzzedPiece
		var text []byte
		for len(input) > 0 && input[0] != '\n' {
			c := input[0]
			input = input[1:]
			if c < fuzzLiteral || c > fuzzLiteral8 || len(input) == 0 {
				text = append(text, c)
				continue
			}
			n := min(int(input[0]), len(input)-1)
			command = append(command, fuzzedPiece{text: string(text), literal: input[1 : 1+n], octet: c})
			text, input = nil, input[1+n:]
		}
		input = input[min(1, len(input)):]
		if bytes.HasSuffix(bytes.TrimRight(text, "\r"), []byte("}")) { // it announces nothing
			text = append(text, ' ')
		}
		commands = append(commands, append(command, fuzzedPiece{text: strings.ReplaceAll(string(text), "\r", " ")}))
	}
	return commands
}

func (p *fuzzedPiece) announce() string {
	switch p.octet {
	case fuzzLiteral:
		return fmt.Sprintf("{%d}", len(p.literal))
	case fuzzNonSync:
		return fmt.Sprintf("{%d+}", len(p.literal))
	case fuzzLiteral8:
		return fmt.Sprintf("~{%d}", len(p.literal))
	}
	return ""
}

// A fuzzed is a session that is fuzzed.
type fuzzed struct {
	t        *testing.T
	c        *dialogConn
	loggedIn bool
	octets   int // that the server has said
	most     int // that it may say
}

func (h *dialogHouse) fuzz(t *testing.T, dir string, state byte, input []byte) {
	time.Sleep(time.Until(dialogBegins))
	d := &dialog{t: t, house: h, conns: map[int]*dialogConn{}, captured: map[string]string{}}
	d.start(dir)
	defer d.stop()
	begin := []string{"messages INBOX 3"}
	if state&fuzzWatched != 0 {
		begin = append(begin, "2 select INBOX")
	}
	switch {
	case state&fuzzSelect != 0:
		begin = append(begin, "select INBOX")
	case state&fuzzLogin != 0:
		begin = append(begin, "login")
	}
	for _, line := range begin {
		p := dialogParser{cases: []dialogCase{{}}}
		if err := errors.Join(p.directive(line), d.step(p.current().steps[0])); err != nil {
			t.Fatal(err)
		}
	}
	c, err := d.conn(1, true)
	if err != nil {
		t.Fatal(err)
	}
	f := &fuzzed{t: t, c: c, loggedIn: state&(fuzzLogin|fuzzSelect) != 0, most: 64<<10 + 4<<10*len(input)}
	if other := d.conns[2]; other != nil {
		other.send("i IDLE\r\n")
		defer func() { (&fuzzed{t: t, c: other, loggedIn: true, most: f.most}).settle() }()
	}
	if state&fuzzUnframed != 0 {
		f.unframed(input)
		return
	}
	for _, command := range fuzzCommands(input) {
		if !f.command(command) {
			return
		}
	}
}

// unframed sends octets, and reads what there is to read.
func (f *fuzzed) unframed(input []byte) {
	f.loggedIn = true // octets may hold a login
	go f.c.w.Write(input)
	f.settle()
}

// settle reads all that is said before the server waits again. It returns false when the connection has ended.
func (f *fuzzed) settle() (responses [][]imaptest.Tree, open bool) {
	synctest.Wait()
	b := f.c.r
	b.mu.Lock()
	said, ended := b.buf, b.err
	b.buf = nil
	b.mu.Unlock()
	if f.octets += len(said); f.octets > f.most {
		f.t.Errorf("the server has said %d octets, and may say %d", f.octets, f.most)
	}
	r := imaptest.NewReader(bytes.NewReader(said))
	for {
		response, err := r.Response()
		if len(response) == 0 && errors.Is(err, io.EOF) {
			return responses, ended == nil
		}
		if err != nil && !(ended != nil && errors.Is(err, io.EOF)) {
			f.t.Fatalf("the server says %q: %v", said, err)
		}
		f.allowed(response)
		responses = append(responses, response)
	}
}

// strangers are the untagged responses that come before a login.
var strangers = []string{"OK", "NO", "BAD", "BYE", "CAPABILITY", "ID", "ENABLED"}

func (f *fuzzed) allowed(response []imaptest.Tree) {
	if f.loggedIn || !response[0].Is("*") || len(response) < 2 {
		return
	}
	if !slices.ContainsFunc(strangers, response[1].Is) {
		f.t.Errorf("a stranger is told %v", response)
	}
}

// command gives one command and reads its answer. It returns false when no other can be given.
func (f *fuzzed) command(pieces []fuzzedPiece) bool {
	tag, verb := fuzzTag(pieces)
	var answers []string
	for _, p := range pieces {
		f.c.send(p.text + p.announce() + "\r\n")
		if p.octet != 0 && p.octet != fuzzNonSync {
			words, open := f.answers(tag)
			if !open {
				return false
			}
			if !slices.Contains(words, "+") { // the literal was refused
				answers = words
				break
			}
		}
		if len(p.literal) > 0 {
			f.c.send(string(p.literal))
		}
	}
	open := true
	if len(answers) == 0 {
		answers, open = f.answers(tag)
	}
	for range 10 { // challenges, and IDLE
		if !open || !slices.Contains(answers, "+") {
			break
		}
		f.c.send("DONE\r\n")
		answers, open = f.answers(tag)
	}
	if !open {
		return false
	}
	if len(answers) != 1 {
		f.t.Fatalf("%q was answered %q", pieces, answers)
	}
	if answers[0] == "OK" && (verb == "LOGIN" || verb == "AUTHENTICATE") {
		f.loggedIn = true
	}
	return verb != "COMPRESS" && verb != "STARTTLS" && verb != "LOGOUT"
}

// answers waits for what ends the server's turn: "+", or the words of tagged answers, and of untagged BAD.
func (f *fuzzed) answers(tag string) (words []string, open bool) {
	for range 200 {
		responses, open := f.settle()
		for _, r := range responses {
			switch {
			case r[0].Is("+"):
				words = append(words, "+")
			case r[0].Text == tag, r[0].Is("*") && r[1].Is("BAD") && !r[2].Is(""):
				words = append(words, strings.ToUpper(r[1].Text))
			case !r[0].Is("*"):
				f.t.Fatalf("an answer to a command that was not given: %v", r)
			}
		}
		if len(words) > 0 || !open {
			return words, open
		}
		time.Sleep(time.Second) // a refused login takes its time
	}
	f.t.Fatalf("no answer")
	return nil, false
}

// fuzzTag is what a command begins with, and its verb.
func fuzzTag(pieces []fuzzedPiece) (tag, verb string) {
	words := strings.Fields(pieces[0].text)
	if len(words) > 1 {
		verb = strings.ToUpper(words[1])
	}
	end := strings.IndexFunc(pieces[0].text, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\+`, r) })
	if end < 0 {
		end = len(pieces[0].text)
	}
	return pieces[0].text[:end], verb
}

// What makes a command of fuzz keeps its parts.
func TestFuzzCommands(t *testing.T) {
	got := fuzzCommands([]byte("a LOGIN \xf0\x01b \xf1\x02c\nd\ne NOOP {3}\nf \xf2"))
	want := [][]fuzzedPiece{
		{{"a LOGIN ", []byte("b"), fuzzLiteral}, {" ", []byte("c\n"), fuzzNonSync}, {text: "d"}},
		{{text: "e NOOP {3} "}},
		{{text: "f \xf2"}},
	}
	if !slices.EqualFunc(got, want, func(a, b []fuzzedPiece) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if s := fuzzAnnounced("a {n+}"); s != "a \xf1" {
		t.Errorf("announced as %q", s)
	}
}
