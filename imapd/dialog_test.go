package imapd

import (
	"flag"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// Dialogs are text files of what a client says and what the server must answer; docs/dialogs.md has the whole
// format. A case looks so:
//
//	== a message that is appended is told to the other session
//	@select INBOX
//	@2 select INBOX
//	C2: b IDLE
//	S2: + {any}
//	C: a APPEND INBOX (\Flagged) {n}
//	C| Subject: hi
//	C|
//	C| hello
//	S: * 1 EXISTS
//	S: ...
//	S: a OK [APPENDUID {num} {uid=\d+}] {any}
//	S2: * 1 EXISTS
//	C2: DONE
//	S2: b OK {any}
//	C: f UID FETCH {=uid} (BODY.PEEK[TEXT])
//	S: * 1 FETCH (UID {=uid} BODY[TEXT] {n}
//	S| hello
//	S+: )
//	S: f OK {any}
//
// Each case has a server, a store and accounts of its own, and a clock that stands still while anybody works and leaps
// when all wait: a login that is refused slowly costs the test no time, and an answer that does not come is missed at
// once. What the server says beyond what a case expects is a failure, also at its end.
func TestDialog(t *testing.T) {
	for _, dir := range strings.Split(*dialogDirs, ",") {
		files := dialogFiles(t, dir)
		if len(files) == 0 {
			t.Errorf("no dialogs in %s", dir)
		}
		h := newDialogHouse(t)
		for _, file := range files {
			name, _ := filepath.Rel(dir, strings.TrimSuffix(file, ".txt"))
			t.Run(filepath.ToSlash(name), func(t *testing.T) { h.runFile(t, file) })
		}
	}
}

var dialogDirs = flag.String("dialog.dir", "testdata/dialog", "directories with dialogs to run, separated by commas")

func dialogFiles(t testing.TB, dir string) (files []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".txt") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// A dialogHouse is what all cases have in common: a data directory with three accounts, which each
// case gets a copy of, and the accounts' directory, which remembers a password that was right.
type dialogHouse struct {
	data     string
	accounts *account.Directory
	owners   map[string]mailbox.Owner // by local part
}

const dialogPassword = "secret"

func newDialogHouse(t testing.TB) *dialogHouse {
	t.Helper()
	h := &dialogHouse{data: storetest.MemoryDir(t), owners: map[string]mailbox.Owner{}}
	st := openStore(t, h.data)
	boxes := mailbox.New(st, mailbox.Options{})
	accounts := account.Open(st, nil)
	if _, err := accounts.AddDomain("example.test"); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"alice", "bob", "carol"} {
		a, err := accounts.Add(envelope.Address{Local: who, Domain: "example.test"}, dialogPassword, func(tx store.Tx, a account.Account) error {
			return boxes.CreateDefaults(tx, mailbox.Owner(a.ID))
		})
		if err != nil {
			t.Fatal(err)
		}
		h.owners[who] = mailbox.Owner(a.ID)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = openStore(t, h.copy(t))
	t.Cleanup(func() { st.Close() })
	h.accounts = account.Open(st, nil)
	return h
}

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (h *dialogHouse) copy(t testing.TB) string {
	t.Helper()
	dir := storetest.MemoryDir(t)
	if err := os.CopyFS(dir, os.DirFS(h.data)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDialogFails holds the runner to what it is for: a dialog that goes another way fails, and says where.
func TestDialogFails(t *testing.T) {
	h := newDialogHouse(t)
	for _, tt := range []struct{ name, script, want string }{
		{"another line", "@login\nC: a NOOP\nS: a OK nope", "x.txt:4: \ngot:  a OK "},
		{"only the beginning of a line", "@login\nC: a NOOP\nS: a OK", "got:  a OK"},
		{"only the end of a line", "@login\nC: a NOOP\nS: OK {any}", "got:  a OK"},
		{"silence", "@login\nS: * 1 EXISTS", "x.txt:3: the server says nothing"},
		{"silence in the middle", "@login\nC-: a NOO\nS: a OK {any}", "says nothing"},
		{"more than expected", "@messages INBOX 1\n@login\nC: a SELECT INBOX\nS: * FLAGS {any}", "x.txt:1: connection 1: this was not expected"},
		{"... does not stand for a tagged line", "@login\nC: a NOOP\nC: b NOOP\nS: ...\nS: b OK {any}", "got:  a OK"},
		{"... at the end does not either", "@login\nC: a NOOP\nS: ...", "this was not expected"},
		{"a group that is not complete", "@login\nC: a NOOP\nS? a OK {any}\nS? b OK {any}", "says nothing"},
		{"a line of no group", "@login\nC: a NOOP\nS? b OK {any}\nS? c OK {any}", "want: b OK {any}\n  or: c OK"},
		{"other octets in a literal", "@messages INBOX 1\n@select INBOX\nC: a FETCH 1 BODY.PEEK[TEXT]\nS: * 1 FETCH (BODY[TEXT] {n}\nS| Text 2.\nS+: )\nS: ...\nS: a OK {any}", "Text 1."},
		{"a literal of another length", "@messages INBOX 1\n@select INBOX\nC: a FETCH 1 BODY.PEEK[TEXT]\nS: * 1 FETCH (BODY[TEXT] {8}\nS| Text 1.\nS+: )\nS: a OK {any}", "{9}"},
		{"no literal", "@messages INBOX 1\n@select INBOX\nC: a FETCH 1 BODY.PEEK[TEXT]\nS: * 1 FETCH (BODY[TEXT] {any}", "Text 1."},
		{"another number than captured", "@login\nC: a NOOP\nS: a {w=OK} {any}\nC: b NOOP\nS: b {=w}x {any}", "x.txt:6"},
		{"nothing captured", "@login\nC: a NOOP {=x}", "nothing was captured as x"},
		{"the end that does not come", "@login\n@closed", "the connection goes on"},
		{"an end that was not expected", "@login\nC: a LOGOUT\nS: * BYE {any}\nS: a OK {any}\nS: b OK {any}", "the connection ended (EOF)"},
		{"a literal that is refused", "@limit MessageSize 10\n@login\nC: a APPEND INBOX {n}\nC| 0123456789", "instead of a continuation request came\na NO"},
		{"not silent", "@login\nC: a NOOP\n@silence", "a OK"},
		{"a directive that is not OK", "@select Nowhere", "NO"},
		{"no such directive", "@dance", "@dance is not known"},
		{"no such account", "@login dave", "NO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cases, err := parseDialogs("x.txt", "== "+tt.name+"\n"+tt.script)
			if err != nil {
				t.Fatal(err)
			}
			dir := h.copy(t)
			synctest.Test(t, func(t *testing.T) {
				err := h.play(t, dir, cases[0])
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("the dialog ended with %v; want %s", err, tt.want)
				}
			})
		})
	}
}

func TestDialogFiles(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "no case"},
		{"C: a NOOP", "x.txt:1: a case begins with =="},
		{"==", "a case begins with =="},
		{"== x\n== x", "x.txt:2: two cases have this title"},
		{"== x\nC a NOOP", "x.txt:2: neither"},
		{"== x\nC? a NOOP", "neither"},
		{"== x\nS-: a NOOP", "neither"},
		{"== x\nC: {any}", "no such placeholder: {any}"},
		{"== x\nS: {foo}", "no such placeholder: {foo}"},
		{"== x\nS: {foo", "a { without its }"},
		{"== x\nC| text", "a line of a literal without"},
		{"== x\nC: {n}\nC2| text", "a line of a literal without"},
		{"== x\nS+: text", "a line of a literal without"},
		{"== x\n| text", "neither"},
		{"== x\n@time yesterday", "cannot parse"},
	} {
		if _, err := parseDialogs("x.txt", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v; want %s", tt.text, err, tt.want)
		}
	}
}

// The page on dialogs has each directive.
func TestDialogPage(t *testing.T) {
	text, err := os.ReadFile("../docs/dialogs.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range dialogDirectives {
		if !strings.Contains(string(text), "`@"+name) {
			t.Errorf("docs/dialogs.md does not say what @%s does", name)
		}
	}
}

func (h *dialogHouse) runFile(t *testing.T, file string) {
	t.Parallel()
	cases, err := readDialogs(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.title, func(t *testing.T) {
			t.Parallel()
			dir := h.copy(t)
			synctest.Test(t, func(t *testing.T) { h.run(t, dir, c) })
		})
	}
}

// dialogBegins is what the clock shows when a case begins, unless it says @time.
var dialogBegins = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// run has one case said, in a bubble with its own time.
func (h *dialogHouse) run(t *testing.T, dir string, c dialogCase) {
	if err := h.play(t, dir, c); err != nil {
		t.Error(err)
	}
}

// play runs a case, and tells where the dialog went wrong and all that was said.
func (h *dialogHouse) play(t *testing.T, dir string, c dialogCase) error {
	time.Sleep(time.Until(c.begins)) // before anything runs that has a timer
	d := &dialog{t: t, house: h, c: c, conns: map[int]*dialogConn{}, captured: map[string]string{}}
	d.start(dir)
	defer d.stop()
	for _, s := range c.steps {
		if err := d.step(s); err != nil {
			return d.wrong(s.at, err)
		}
	}
	if err := d.nothingLeft(); err != nil {
		return d.wrong(c.at, err)
	}
	return nil
}

// start makes the server's parts; listeners come with the first connection, so that a case can set limits before.
func (d *dialog) start(dir string) {
	st := openStore(d.t, dir)
	d.store = st
	d.config = Config{
		Store:     st,
		Mailboxes: mailbox.New(st, mailbox.Options{Quota: quotaOf}),
		Accounts:  d.house.accounts,
		Logins:    account.NewLogins(d.house.accounts, account.NewGuard(nil, nil)), // all cases share the accounts: they are only read
		Log:       slog.New(strict{d.t}),
	}
}

// stop ends everything, and has the store checked.
func (d *dialog) stop() {
	for _, c := range d.conns {
		c.hangUp()
	}
	for _, l := range d.listening {
		l.stop(d.t)
	}
	checkDialogStore(d)
	if err := d.store.Close(); err != nil {
		d.t.Errorf("close the store: %v", err)
	}
}

func checkDialogStore(d *dialog) {
	ctx := d.t.Context()
	result, err := d.store.Check(ctx, []store.References{d.config.Mailboxes.References}, nil)
	if err != nil {
		d.t.Errorf("check the store: %v", err)
	}
	more, err := d.config.Mailboxes.Check(ctx)
	if err != nil {
		d.t.Errorf("check the mailboxes: %v", err)
	}
	for _, p := range append(result.Problems, more...) {
		d.t.Errorf("check: %s: %s", p.What, p.Text)
	}
}

// A dialogListener is a server and the pipes that lead to it.
type dialogListener struct {
	srv   *Server
	pipes *listentest.Pipes
	done  chan error
}

func (d *dialog) listen(implicitTLS bool) *dialogListener {
	if l := d.listening[implicitTLS]; l != nil {
		return l
	}
	l := &dialogListener{NewServer(implicitTLS, d.config), listentest.NewPipes(), make(chan error, 1)}
	go func() { l.done <- l.srv.Serve(l.pipes) }()
	if d.listening == nil {
		d.listening = map[bool]*dialogListener{}
	}
	d.listening[implicitTLS] = l
	return l
}

func (l *dialogListener) dial(from net.IP) net.Conn {
	if from != nil {
		return l.pipes.DialFrom(from)
	}
	return l.pipes.Dial()
}

func (l *dialogListener) stop(t *testing.T) {
	if err := l.srv.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-l.done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// deliver puts a message into a mailbox as delivery does, behind every session's back.
func (d *dialog) deliver(who, name, msg string, internal time.Time, flags []string) error {
	owner, ok := d.house.owners[who]
	if !ok {
		return errNobody
	}
	st, err := mime.Scan(strings.NewReader(msg))
	if err != nil {
		return err
	}
	structure, err := st.AppendBinary(nil)
	if err != nil {
		return err
	}
	draft := d.store.NewDraft()
	io.WriteString(draft, msg)
	return d.store.Update(func(tx store.Tx) error {
		_, err := d.config.Mailboxes.Add(tx, owner, name, mailbox.Arrival{
			Body: draft.ID(), Size: draft.Size(), Structure: structure, Internal: internal, Flags: flags,
		})
		return err
	}, draft)
}
