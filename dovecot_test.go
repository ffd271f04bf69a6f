package postroad_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postroad"
	"postroad/internal/imaptest"
)

// dovecotIMAP is Debian's Dovecot without its login processes: it speaks IMAP on its standard input and output.
const dovecotIMAP = "/usr/lib/dovecot/imap"

// startDovecot starts a private Dovecot as the current user, in a directory of its own; it listens nowhere. The
// test is skipped where there is none.
func startDovecot(t *testing.T) *dovecot {
	t.Helper()
	if _, err := os.Stat(dovecotIMAP); err != nil {
		t.Skip("Dovecot (Debian's dovecot-imapd) is not installed; nothing to compare with")
	}
	dir, uid, gid := dovecotHome(t)
	config := filepath.Join(dir, "dovecot.conf")
	text := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
ssl = no
mail_location = sdbox:%[1]s/mail
mail_uid = %[2]d
mail_gid = %[3]d
first_valid_uid = 0
first_valid_gid = 0
mail_fsync = never
imap_max_line_length = 1M
namespace inbox {
  inbox = yes
  separator = /
}
`, dir, uid, gid)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &dovecot{config: config, home: dir}
	if err := d.connect(t); err != nil {
		t.Skipf("Dovecot does not run here: %v", err)
	}
	return d
}

// A dovecot is one that runs, with a session.
type dovecot struct {
	*treeConn
	config, home string
}

// connect starts the process that is a session.
func (d *dovecot) connect(t *testing.T) error {
	cmd := exec.Command(dovecotIMAP, "-c", d.config)
	cmd.Env = append(os.Environ(), "USER=alice", "HOME="+d.home)
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return err
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	d.treeConn = newTreeConn("Dovecot", out, in)
	if greeting, err := d.r.Response(); err != nil || !greeting[1].Is("PREAUTH") {
		return fmt.Errorf("greeted with %v, %v %s", greeting, err, said.String())
	}
	return nil
}

// fetch is treeConn's; a Dovecot that breaks off (it aborts on a message or two) is started again.
func (c *comparison) theirFetch(line string) (map[uint32]map[string]imaptest.Tree, error) {
	got, err := c.theirs.fetch(line)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.EPIPE) {
		return got, err
	}
	if again := c.theirs.connect(c.t); again != nil {
		c.t.Fatal(again)
	}
	c.theirs.must(c.t, "SELECT corpus")
	return got, &refused{"Dovecot: " + line + ": the connection ended"}
}

// dovecotHome is a directory for Dovecot and the user it runs as: this one, but nobody in place of root, whom
// it refuses.
func dovecotHome(t *testing.T) (dir string, uid, gid int) {
	if os.Getuid() != 0 {
		return t.TempDir(), os.Getuid(), os.Getgid()
	}
	dir, err := os.MkdirTemp("", "postroad-dovecot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const nobody = 65534
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	return dir, nobody, nobody
}

// startOurs starts our server and logs in.
func startOurs(t *testing.T) *treeConn {
	t.Helper()
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	return dialTree(t, embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann), ann)
}

func dialTree(t *testing.T, s *embedded, as postroad.Credential) *treeConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr("imap"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Minute))
	c := newTreeConn("postroad", conn, conn)
	if greeting, err := c.r.Response(); err != nil || !greeting[1].Is("OK") {
		t.Fatalf("greeted with %v, %v", greeting, err)
	}
	c.must(t, "LOGIN "+as.Address+" "+as.Password)
	return c
}

var dovecotAll = flag.Bool("dovecot.all", false, "compare every message of the corpus with Dovecot, not some of them")

// someOf is the part of the corpus that is compared without the flag: one message of so many.
const someOf = 10

// Dovecot and we are given the same messages and asked the same. Where the answers differ, a rule has to say why, and
// docs/imap-differences.md by which text of an RFC.
func TestAgainstDovecot(t *testing.T) {
	if testing.Short() {
		t.Skip("compares many messages with Dovecot")
	}
	c := &comparison{t: t, ours: startOurs(t), theirs: startDovecot(t)}
	c.load(compareWith(corpus(t)))
	c.messages()
	if c.ours.can(t, "SORT") && c.ours.can(t, "THREAD=REFERENCES") {
		c.searches()
		c.sorts()
		c.threads()
	}
	c.report()
}

// compareWith are the messages that are compared: our own golden ones in any case.
func compareWith(files []string) (some []string) {
	for i, file := range files {
		if *dovecotAll || i%someOf == 0 || strings.HasPrefix(file, "testdata") {
			some = append(some, file)
		}
	}
	return some
}

// A comparison is two servers with the same messages in the mailbox "corpus".
type comparison struct {
	t           *testing.T
	ours        *treeConn
	theirs      *dovecot
	texts       []compared // message n is texts[n-1]
	differences []difference
	asked       int
}

type compared struct {
	file string
	text []byte
}

// A difference is one answer that is not the same.
type difference struct {
	message      *compared   // nil when it is not about one
	others       []*compared // that the answers name
	question     string
	ours, theirs imaptest.Tree
}

func (c *comparison) both(line string, literals ...[]byte) {
	c.t.Helper()
	c.ours.must(c.t, line, literals...)
	c.theirs.must(c.t, line, literals...)
}

// load appends every message, as it would come by SMTP, to both.
func (c *comparison) load(files []string) {
	c.both("CREATE corpus")
	for i, file := range files {
		text := asSent(c.t, file)
		date := time.Date(2024, time.Month(1+i%12), 10+i%19, i%24, i%60, 0, 0, time.UTC).Format(`"_2-Jan-2006 15:04:05 -0700"`)
		c.both("APPEND corpus "+date+" {}", text)
		c.texts = append(c.texts, compared{file, text})
	}
	c.both("SELECT corpus")
}

// messages compares what FETCH says of every message.
func (c *comparison) messages() {
	for _, items := range []string{"UID INTERNALDATE RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE"} {
		c.fetch("1:*", items)
	}
	c.previews()
	for n := range c.texts {
		c.sections(uint32(n + 1))
	}
}

// fetch compares the items of a FETCH, one by one.
func (c *comparison) fetch(set, items string) {
	line := "FETCH " + set + " (" + items + ")"
	ours, err1 := c.ours.fetch(line)
	theirs, err2 := c.theirFetch(line)
	c.refusals(set, items, err1, err2)
	for n := range c.texts {
		n := uint32(n + 1)
		for _, item := range itemsOf(ours[n], theirs[n]) {
			c.compare(n, item, ours[n][item], theirs[n][item])
		}
	}
}

func itemsOf(a, b map[string]imaptest.Tree) (names []string) {
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// alike is how much of two previews has to be the same.
const alike = 30

// previews compares how previews begin.
func (c *comparison) previews() {
	ours, err1 := c.ours.fetch("FETCH 1:* (PREVIEW)")
	theirs, err2 := c.theirFetch("FETCH 1:* (PREVIEW)")
	c.refusals("1:*", "PREVIEW", err1, err2)
	begins := func(n imaptest.Tree) imaptest.Tree {
		n.Text = collapsed(n.Text)
		n.Text = n.Text[:min(len(n.Text), alike)]
		return n
	}
	for n := range c.texts {
		n := uint32(n + 1)
		c.compare(n, "PREVIEW", begins(ours[n]["PREVIEW"]), begins(theirs[n]["PREVIEW"]))
	}
}

// refusals compares whether a command was OK, and returns whether for one of them it was not.
func (c *comparison) refusals(set, items string, ours, theirs error) bool {
	for _, err := range []error{ours, theirs} {
		if _, no := errors.AsType[*refused](err); err != nil && !no {
			c.t.Fatal(err)
		}
	}
	if (ours == nil) != (theirs == nil) {
		c.differ(difference{message: c.message(set), question: items, ours: verdict(ours), theirs: verdict(theirs)})
	}
	return ours != nil || theirs != nil
}

func verdict(err error) imaptest.Tree {
	if err == nil {
		return imaptest.Tree{Kind: imaptest.Atom, Text: "OK"}
	}
	return imaptest.Tree{Kind: imaptest.String, Text: err.Error()}
}

func (c *comparison) message(set string) *compared {
	var n int
	if fmt.Sscanf(set, "%d", &n); n < 1 || strings.Contains(set, ":") {
		return nil
	}
	return &c.texts[n-1]
}

// compare holds an answer against the other's, the larger ones element by element, so that each difference is told
// by itself.
func (c *comparison) compare(n uint32, question string, ours, theirs imaptest.Tree) {
	c.asked++
	switch {
	case ours.Equal(theirs):
	case question == "ENVELOPE":
		c.elements(n, question, envelopeNames, ours, theirs)
	case question == "BODY", question == "BODYSTRUCTURE":
		c.structure(n, question, ours, theirs)
	default:
		c.differ(difference{message: &c.texts[n-1], question: question, ours: ours, theirs: theirs})
	}
}

// The elements of ENVELOPE and BODYSTRUCTURE by name (RFC 9051, 7.5.2).
var (
	envelopeNames  = []string{"date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id"}
	multipartNames = []string{"subtype", "parameters", "disposition", "language", "location"}
	partNames      = []string{"type", "subtype", "parameters", "id", "description", "encoding", "octets"}
	extensionNames = []string{"md5", "disposition", "language", "location"}
	textNames      = slices.Concat(partNames, []string{"lines"}, extensionNames)
	messageNames   = slices.Concat(partNames, []string{"envelope", "body", "lines"}, extensionNames)
	caseless       = []string{"type", "subtype", "encoding"} // RFC 2045, 5.1 and 6.1
	otherNames     = slices.Concat(partNames, extensionNames)
)

func (c *comparison) elements(n uint32, question string, names []string, ours, theirs imaptest.Tree) {
	if ours.Kind != imaptest.List || len(ours.List) != len(theirs.List) || len(ours.List) > len(names) {
		c.differ(difference{message: &c.texts[n-1], question: question, ours: ours, theirs: theirs})
		return
	}
	for i := range ours.List {
		ours, theirs, name := ours.At(i), theirs.At(i), question+" "+names[i]
		switch {
		case ours.Equal(theirs):
		case slices.Contains(caseless, names[i]) && strings.EqualFold(ours.Text, theirs.Text) && ours.Kind == theirs.Kind:
		case names[i] == "envelope":
			c.elements(n, name, envelopeNames, ours, theirs)
		case names[i] == "body":
			c.structure(n, name, ours, theirs)
		default:
			c.differ(difference{message: &c.texts[n-1], question: name, ours: ours, theirs: theirs})
		}
	}
}

// structure compares parts whose structure is alike.
func (c *comparison) structure(n uint32, question string, ours, theirs imaptest.Tree) {
	parts := children(ours)
	names := otherNames
	switch {
	case parts != children(theirs):
		c.differ(difference{message: &c.texts[n-1], question: question + " parts", ours: ours, theirs: theirs})
		return
	case parts > 0:
		for i := range parts {
			c.structure(n, fmt.Sprint(question, " ", i+1), ours.At(i), theirs.At(i))
		}
		ours.List, theirs.List, names = ours.List[parts:], theirs.List[parts:], multipartNames
	case ours.At(0).Is("text"):
		names = textNames
	case ours.At(0).Is("message") && ours.At(7).Kind == imaptest.List && theirs.At(7).Kind == imaptest.List:
		names = messageNames
	}
	c.elements(n, question, names, ours, theirs)
}

func children(n imaptest.Tree) (count int) {
	for count < len(n.List) && n.List[count].Kind == imaptest.List {
		count++
	}
	return count
}

func (c *comparison) differ(d difference) { c.differences = append(c.differences, d) }

// sections compares every part of a message in every way to ask for it.
func (c *comparison) sections(n uint32) {
	structure, err := c.theirFetch(fmt.Sprintf("FETCH %d (BODYSTRUCTURE)", n))
	if err != nil {
		c.t.Fatal(err)
	}
	items := []string{"BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[]<10.20>", "BODY.PEEK[TEXT]<0.100000>", "BODY.PEEK[HEADER]<5000.10>",
		"BODY.PEEK[HEADER.FIELDS (From TO subject Received X-None)]", "BODY.PEEK[HEADER.FIELDS.NOT (RECEIVED From DKIM-Signature)]", "RFC822.HEADER"}
	c.fetchOne(n, "BINARY.PEEK[] BINARY.SIZE[]")
	for _, p := range partsOf(structure[n]["BODYSTRUCTURE"], "", nil) {
		items = append(items, "BODY.PEEK["+p.path+"]", "BODY.PEEK["+p.path+".MIME]", "BODY.PEEK["+p.path+"]<3.7>")
		if p.message {
			items = append(items, "BODY.PEEK["+p.path+".HEADER]", "BODY.PEEK["+p.path+".TEXT]", "BODY.PEEK["+p.path+".HEADER.FIELDS (FROM SUBJECT)]")
		}
		if p.leaf {
			c.binary(n, p.path)
		}
	}
	items = append(items, "BODY.PEEK[99]", "BODY.PEEK[1.99]", "BODY.PEEK[99.MIME]")
	for chunk := range slices.Chunk(items, 100) {
		c.fetchOne(n, strings.Join(chunk, " "))
	}
}

func (c *comparison) fetchOne(n uint32, items string) {
	set := fmt.Sprint(n)
	line := "FETCH " + set + " (" + items + ")"
	ours, err1 := c.ours.fetch(line)
	theirs, err2 := c.theirFetch(line)
	if c.refusals(set, items, err1, err2) {
		return // Dovecot leaves items out then, and tells UID
	}
	for _, item := range itemsOf(ours[n], theirs[n]) {
		c.compare(n, item, ours[n][item], theirs[n][item])
	}
}

// binary compares a decoded part. Its size has to be ours.
func (c *comparison) binary(n uint32, path string) {
	items := fmt.Sprintf("BINARY.PEEK[%[1]s] BINARY.PEEK[%[1]s]<1.5>", path)
	line := fmt.Sprintf("FETCH %d (%s)", n, items)
	ours, err1 := c.ours.fetch(line)
	theirs, err2 := c.theirFetch(line)
	size, err3 := c.ours.fetch(fmt.Sprintf("FETCH %d (BINARY.SIZE[%s])", n, path))
	for item, v := range ours[n] {
		if got := size[n]["BINARY.SIZE["+path+"]"]; !strings.HasSuffix(item, ">") && got.Text != fmt.Sprint(len(v.Text)) {
			c.t.Errorf("%s: %s has %d octets, and BINARY.SIZE is %v, %v", c.texts[n-1].file, item, len(v.Text), got, err3)
		}
	}
	if c.refusals(fmt.Sprint(n), items, err1, err2) {
		return
	}
	for _, item := range itemsOf(ours[n], theirs[n]) {
		c.compare(n, item, ours[n][item], theirs[n][item])
	}
}

type part struct {
	path          string
	message, leaf bool
}

// partsOf lists the parts that a BODYSTRUCTURE has (RFC 9051, 6.4.5.1).
func partsOf(n imaptest.Tree, path string, parts []part) []part {
	if n.At(0).Kind == imaptest.List { // multipart
		for i, child := range n.List {
			if child.Kind != imaptest.List {
				break
			}
			parts = partsOf(child, join(path, i+1), parts)
		}
		return parts
	}
	if path == "" {
		path = "1"
	}
	message := n.At(0).Is("message") && n.At(1).Is("rfc822") && n.At(8).Kind == imaptest.List
	parts = append(parts, part{path, message, !message})
	if message {
		inner := path
		if n.At(8).At(0).Kind != imaptest.List {
			inner = join(path, 1)
		}
		parts = partsOf(n.At(8), inner, parts)
	}
	return parts
}

func join(path string, n int) string {
	if path == "" {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s.%d", path, n)
}

// shownDifferences is how many differences without a rule are printed in full.
const shownDifferences = 40

// report fails for every difference that no rule knows.
func (c *comparison) report() {
	c.t.Logf("%d messages, %d answers compared, %d differ", len(c.texts), c.asked, len(c.differences))
	known, unknown := map[string]int{}, 0
	parts := map[*compared]string{} // why the parts of a message are other ones
	for _, d := range c.differences {
		rule := ruleFor(&d)
		if !d.searchesBody() && slices.Contains(otherParts, rule) {
			parts[d.message] = rule
		}
		if rule == "" && (d.ofPart() || d.searchesBody()) {
			rule = parts[d.message]
		}
		if rule != "" {
			known[rule]++
			continue
		}
		if unknown++; unknown <= shownDifferences {
			c.t.Error(d)
		}
	}
	if unknown > shownDifferences {
		c.t.Errorf("and %d more", unknown-shownDifferences)
	}
	for _, name := range ruleNames() {
		c.t.Logf("%6d %s", known[name], name)
		if known[name] == 0 && *dovecotAll && hasCorpus() {
			c.t.Errorf("no difference is of the kind %q any more; take it out here and of docs/imap-differences.md", name)
		}
	}
}

func hasCorpus() bool {
	_, err := os.Stat(corpusDir)
	return err == nil
}

// Each kind of difference has a section in the docs, and the docs have no others.
func TestDifferencesAreListed(t *testing.T) {
	text, err := os.ReadFile("docs/imap-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			listed = append(listed, title)
		}
	}
	if slices.Sort(listed); !slices.Equal(listed, ruleNames()) {
		t.Errorf("listed: %q\nknown:  %q", listed, ruleNames())
	}
}

func (d difference) String() string {
	file := "all messages"
	if d.message != nil {
		file = d.message.file
	}
	return fmt.Sprintf("%s: %s\nours:   %v\ntheirs: %v", file, d.question, d.ours, d.theirs)
}
