package imapd

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// allFaults is for `go test ./imapd -faults.all`, which .ci/run gives; it takes eight times as long.
var allFaults = flag.Bool("faults.all", false, "meet each fault at each operation of the disk, not an eighth of them")

// A faultRun is a client that changes mailboxes on a disk that fails once. It knows which states are right.
type faultRun struct {
	house
	disk   *storetest.FaultFS
	dir    string
	c      *raw
	right  []faultState // the last one is after the last command, and the one before it counts while that is unknown
	failed bool         // the store refuses to write
}

// A faultState is the messages of each mailbox, as subjects with flags.
type faultState map[string][]string

func (s faultState) clone() faultState {
	c := faultState{}
	for name, list := range s {
		c[name] = slices.Clone(list)
	}
	return c
}

func (s faultState) put(name string, messages ...string) { s[name] = append(s[name], messages...) }

func (s faultState) drop(name, message string) {
	s[name] = slices.DeleteFunc(s[name], func(m string) bool { return m == message })
}

func (s faultState) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s: %q; ", name, slices.Sorted(slices.Values(s[name])))
	}
	return b.String()
}

// newFaultTemplate makes a data directory with accounts and mailboxes and no messages.
func newFaultTemplate(t *testing.T) (dir string, owner mailbox.Owner) {
	r := &faultRun{house: house{t: t}, disk: newFaultDisk(), dir: storetest.MemoryDir(t)}
	r.open()
	r.owner = r.addAccount(user)
	r.addAccount("bob@example.test")
	for _, name := range []string{"A", "B"} {
		_, err := r.config.Mailboxes.Create(r.owner, name, "")
		r.must(err)
	}
	r.must(r.config.Store.Close())
	return r.dir, r.owner
}

func newFaultDisk() *storetest.FaultFS {
	disk := storetest.NewFaultFS()
	disk.SetFree(4 << 20) // too little for ballast
	return disk
}

func newFaultRun(t *testing.T, template string, owner mailbox.Owner) *faultRun {
	r := &faultRun{house: house{t: t, owner: owner}, disk: newFaultDisk(), dir: storetest.MemoryDir(t)}
	r.must(os.CopyFS(r.dir, os.DirFS(template)))
	r.open()
	r.right = []faultState{{"A": nil, "B": nil}}
	return r
}

func (r *faultRun) open() {
	r.t.Helper()
	st, err := store.Open(r.dir, store.Options{FS: r.disk, Reserve: 1})
	r.must(err)
	r.config = Config{Store: st, Mailboxes: mailbox.New(st, mailbox.Options{}), Accounts: account.Open(st, time.Now), Log: slog.New(slog.DiscardHandler)}
}

// letter is a message of at least some octets.
func letter(subject string, octets int) string {
	return "Subject: " + subject + "\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", octets/17) + "the end of " + subject + "\r\n"
}

// uid returns the UID of a message, or "".
func (r *faultRun) uid(name, subject string) string {
	r.t.Helper()
	r.say("SELECT " + name)
	answer := r.say("UID SEARCH SUBJECT " + subject)
	for _, line := range strings.Split(answer, "\n") {
		if rest, ok := strings.CutPrefix(line, "* SEARCH "); ok {
			return rest
		}
	}
	return ""
}

// say gives a command and returns the answer, whose last line is the tagged one.
func (r *faultRun) say(command string) string {
	r.t.Helper()
	r.c.send("f " + command + "\r\n")
	var answer strings.Builder
	for {
		line := r.c.line()
		answer.WriteString(line + "\n")
		if strings.HasPrefix(line, "f ") {
			return answer.String()
		}
	}
}

// do gives a command that leads to another state when it is answered OK. A NO leads nowhere, unless with it the store has
// failed: then nobody knows.
func (r *faultRun) do(command string, effect func(s faultState)) {
	r.t.Helper()
	now := r.right[len(r.right)-1]
	then := now.clone()
	effect(then)
	answer := r.say(command)
	last := answer[strings.LastIndex("\n"+strings.TrimSuffix(answer, "\n"), "\n"):]
	switch {
	case r.failed && !strings.HasPrefix(last, "f NO [UNAVAILABLE] "):
		r.t.Errorf("the store has failed, and %.60q is answered %q", command, last)
	case r.failed:
	case strings.HasPrefix(last, "f OK"):
		r.right = []faultState{then}
	case !strings.HasPrefix(last, "f NO ["):
		r.t.Errorf("%.60q is answered %q", command, last)
	case r.config.Store.Failed() != nil:
		r.failed = true
		r.right = []faultState{then, now}
	}
}

func appendCommand(verb string, letters ...string) string {
	for _, l := range letters {
		verb += fmt.Sprintf(" {%d+}\r\n%s", len(l), l)
	}
	return verb
}

// work is what the client does.
func (r *faultRun) work() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	r.addr = ln.Addr().String()
	r.srv = r.serveOn(ln, false)
	r.c = r.loggedIn()
	const large = 200 << 10 // a file of its own
	r.do(appendCommand("APPEND A", letter("one", 100)), func(s faultState) { s.put("A", "one") })
	r.do(appendCommand("APPEND A", letter("two", large)), func(s faultState) { s.put("A", "two") })
	r.do(appendCommand("APPEND A", letter("three", 10), letter("four", large), letter("five", 10)), func(s faultState) { s.put("A", "three", "four", "five") })
	if uid := r.uid("A", "one"); uid != "" {
		r.do("UID COPY "+uid+" B", func(s faultState) { s.put("B", "one") })
		r.do("UID STORE "+uid+` +FLAGS.SILENT (\Flagged)`, func(s faultState) { s.drop("A", "one"); s.put("A", `one \Flagged`) })
	}
	if uid := r.uid("A", "two"); uid != "" {
		r.do("UID MOVE "+uid+" B", func(s faultState) { s.drop("A", "two"); s.put("B", "two") })
	}
	if uid := r.uid("A", "three"); uid != "" {
		r.do(appendCommand("UID REPLACE "+uid+" B", letter("six", large)), func(s faultState) { s.drop("A", "three"); s.put("B", "six") })
	}
	if uid := r.uid("A", "four"); uid != "" {
		r.do("UID STORE "+uid+` +FLAGS.SILENT (\Deleted)`, func(s faultState) { s.drop("A", "four"); s.put("A", `four \Deleted`) })
		if !r.failed { // there is nothing to expunge otherwise
			r.do("UID EXPUNGE "+uid, func(s faultState) { s.drop("A", `four \Deleted`) })
		}
	}
	r.do("CREATE C", func(s faultState) { s["C"] = nil })
	if _, there := r.right[0]["C"]; there {
		r.do("RENAME C D", func(s faultState) { s["D"] = s["C"]; delete(s, "C") })
	}
	r.do("SETACL B bob@example.test lr", func(faultState) {})
	r.do(`SETMETADATA B (/private/comment "x")`, func(faultState) {})
	r.do(appendCommand("APPEND B", letter("seven", 10)), func(s faultState) { s.put("B", "seven") })
}

// readable has all messages be read, in whatever state the store is.
func (r *faultRun) readable() {
	r.t.Helper()
	for _, name := range []string{"A", "B"} {
		r.say("SELECT " + name)
		answer := r.say("UID FETCH 1:* (UID BODY.PEEK[])")
		if strings.Contains(answer, "\nf NO ") && r.disk.Tripped() { // the fault was met by reading
			answer = r.say("UID FETCH 1:* (UID BODY.PEEK[])")
		}
		if !strings.Contains(answer, "\nf OK") && !strings.HasPrefix(answer, "f OK") {
			r.t.Errorf("%s cannot be read: %.200q", name, answer)
		}
		for _, m := range r.right[len(r.right)-1][name] {
			subject, _, _ := strings.Cut(m, " ")
			if !strings.Contains(answer, "the end of "+subject) {
				r.t.Errorf("%s: %q is not among what is read", name, subject)
			}
		}
	}
}

// audit opens the store again and holds it against the states that are right.
func (r *faultRun) audit() {
	r.t.Helper()
	if err := r.config.Store.Close(); err != nil && !r.failed {
		r.t.Logf("close: %v", err)
	}
	r.disk.FailAt(-1, "", false)
	r.open()
	defer r.config.Store.Close()
	there := faultState{}
	list, err := r.config.Mailboxes.List(r.owner)
	r.must(err)
	for _, m := range list {
		if len(m.Name) > 1 {
			continue
		}
		there[m.Name] = nil
		for item, err := range r.config.Mailboxes.Read(m.ID, nil, mailbox.Notes|mailbox.Bodies) {
			r.must(err)
			r.must(item.Err)
			there.put(m.Name, strings.TrimSpace(string(item.Stored.Subject())+" "+strings.Join(item.Flags, " ")))
		}
	}
	if !slices.ContainsFunc(r.right, func(s faultState) bool { return s.String() == there.String() }) {
		r.t.Errorf("there is %v, want one of %v", there, r.right)
	}
	problems, err := r.config.Mailboxes.Check(r.t.Context())
	r.must(err)
	for _, p := range problems {
		r.t.Errorf("check: %s: %s", p.What, p.Text)
	}
	storetest.Check(r.t, r.config.Store, r.config.Mailboxes.References)
}

// Each write, sync, opening and renaming fails once in each form while clients change mailboxes: what was answered OK is
// there after a restart, what was answered NO is not, all that is there can be read meanwhile, and a store that cannot
// know what is on the disk refuses to write and says so.
func TestFaultAtEachChange(t *testing.T) {
	template, owner := newFaultTemplate(t)
	clean := newFaultRun(t, template, owner)
	first := len(clean.disk.Ops())
	clean.work()
	clean.readable()
	clean.srv.Shutdown(t.Context())
	ops := clean.disk.Ops()
	clean.audit()
	refusing := 0
	for n := first; n < len(ops); n++ {
		if verb, _, _ := strings.Cut(ops[n], " "); verb == "read" || verb == "stat" || verb == "readdir" {
			continue
		}
		for i, fault := range []storetest.Fault{storetest.NotDone, storetest.Done, storetest.Half, storetest.Full} {
			if !*allFaults && (n+i)%8 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%d %s: %s", n, ops[n], fault), func(t *testing.T) {
				r := newFaultRun(t, template, owner)
				r.disk.FailAt(n, fault, false)
				r.work()
				r.readable()
				if r.failed {
					refusing++
				}
				r.srv.Shutdown(t.Context())
				r.audit()
			})
		}
	}
	if refusing == 0 {
		t.Error("no fault had the store refuse to write")
	}
	t.Logf("the store refused to write after %d faults", refusing)
}
