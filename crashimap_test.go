package postroad_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"postroad/internal/imaptest"
)

// In TestCrash some clients change the mailboxes of one account in every way that IMAP has. Each has mailboxes of its own, and
// messages of its own in mailboxes that all use. So at any time there are two states that are right: the one after its last
// answer, and the one that the command under way leads to, which is done entirely or not at all.
const (
	crashWriters = 3
	crashWords   = 40 // different ones in the texts of messages
	crashSeeds   = 300
)

var (
	crashAccount = receiver(1)
	crashShared  = []string{"S0", "S1"}
	crashFlags   = []string{`\Answered`, `\Deleted`, `\Flagged`, `\Seen`, "crash"}
	crashEntries = []string{"/private/comment", "/shared/comment"}
)

// A crashState is what a client knows of its mailboxes.
type crashState map[string]*crashBox

type crashBox struct {
	mail   map[uint32]crashMail
	coming []crashMail       // without UIDs yet
	facts  map[string]string // grants and annotations
}

type crashMail struct{ id, flags string }

func (s crashState) clone() crashState {
	c := crashState{}
	for name, b := range s {
		c[name] = &crashBox{maps.Clone(b.mail), slices.Clone(b.coming), maps.Clone(b.facts)}
	}
	return c
}

func newCrashBox() *crashBox {
	return &crashBox{mail: map[uint32]crashMail{}, facts: map[string]string{}}
}

// arrived gives messages their UIDs.
func (b *crashBox) arrived(uids []uint32) error {
	if len(uids) != len(b.coming) {
		return fmt.Errorf("UIDs %d for %d messages", uids, len(b.coming))
	}
	for i, m := range b.coming {
		b.mail[uids[i]] = m
	}
	b.coming = nil
	return nil
}

// differs says in which way what is there is not the state; "" when it is.
func (s crashState) differs(there crashState) string {
	if want, got := slices.Sorted(maps.Keys(s)), slices.Sorted(maps.Keys(there)); !slices.Equal(want, got) {
		return fmt.Sprintf("mailboxes %q, want %q", got, want)
	}
	for name, b := range s {
		if d := b.differs(there[name]); d != "" {
			return name + ": " + d
		}
	}
	return ""
}

func (b *crashBox) differs(there *crashBox) string {
	if !maps.Equal(b.facts, there.facts) {
		return fmt.Sprintf("%q, want %q", there.facts, b.facts)
	}
	rest := maps.Clone(there.mail)
	for uid, m := range b.mail {
		if got, ok := rest[uid]; got != m {
			return fmt.Sprintf("UID %d is %q (there: %t), want %q", uid, got, ok, m)
		}
		delete(rest, uid)
	}
	var came []crashMail
	for _, uid := range slices.Sorted(maps.Keys(rest)) {
		came = append(came, rest[uid])
	}
	if !slices.Equal(came, b.coming) {
		return fmt.Sprintf("%d more messages %q, want %d", len(came), came[:min(len(came), 3)], len(b.coming))
	}
	return ""
}

// A crashConn is a connection that shows what each answer was.
type crashConn struct {
	conn net.Conn
	r    imaptest.Reader
	tag  int
}

func crashDial(addr, user string) (*crashConn, error) { return dialIMAP(addr, user, crashPassword) }

func dialIMAP(addr, user, password string) (*crashConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &crashConn{conn: conn, r: imaptest.NewReader(conn)}
	if _, err = c.r.Response(); err == nil {
		_, err = c.ok("LOGIN " + user + " " + password)
	}
	if err == nil {
		_, err = c.ok("ENABLE QRESYNC")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// say gives a command, with a literal for each {} in it, and returns all responses, the tagged one last.
func (c *crashConn) say(line string, literals ...[]byte) (responses [][]imaptest.Tree, err error) {
	c.tag++
	tag := "c" + strconv.Itoa(c.tag)
	var b bytes.Buffer
	for i, piece := range strings.Split(tag+" "+line, "{}") {
		if i > 0 {
			b.Write(literals[i-1])
		}
		if b.WriteString(piece); i < len(literals) {
			fmt.Fprintf(&b, "{%d+}", len(literals[i]))
		}
		b.WriteString("\r\n")
	}
	go c.conn.Write(b.Bytes()) // an answer may come before the end
	for {
		response, err := c.r.Response()
		if err != nil {
			return nil, err
		}
		responses = append(responses, response)
		if response[0].Is(tag) {
			return responses, nil
		}
	}
}

// ok gives a command that must be done.
func (c *crashConn) ok(line string, literals ...[]byte) ([][]imaptest.Tree, error) {
	responses, err := c.say(line, literals...)
	if err == nil && !lastOf(responses)[1].Is("OK") {
		err = &refused{fmt.Sprintf("%s: %v", line, lastOf(responses))}
	}
	return responses, err
}

func lastOf(responses [][]imaptest.Tree) []imaptest.Tree { return responses[len(responses)-1] }

// codeIn returns the words of a response code: of [APPENDUID 1 2] that is "1", "2".
func codeIn(responses [][]imaptest.Tree, code string) []string {
	for _, r := range responses {
		if len(r) < 3 || r[2].Kind != imaptest.Atom {
			continue
		}
		if rest, ok := strings.CutPrefix(r[2].Text, "["+code+" "); ok {
			words, _, _ := strings.Cut(rest, "]")
			return strings.Fields(words)
		}
	}
	return nil
}

func numberIn(responses [][]imaptest.Tree, code string) uint64 {
	words := codeIn(responses, code)
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(words[0], 10, 64)
	return n
}

// numbersOf reads a set such as 3:5,7.
func numbersOf(set string) (all []uint32) {
	for part := range strings.SplitSeq(set, ",") {
		from, to, ranged := strings.Cut(part, ":")
		a, _ := strconv.ParseUint(from, 10, 32)
		b, _ := strconv.ParseUint(to, 10, 32)
		if !ranged {
			b = a
		}
		for ; a != 0 && a <= b; a++ {
			all = append(all, uint32(a))
		}
	}
	return all
}

func setOf(uids []uint32) string {
	words := make([]string, len(uids))
	for i, uid := range uids {
		words[i] = strconv.Itoa(int(uid))
	}
	return strings.Join(words, ",")
}

// itemsIn are the items of an untagged FETCH, by name; nil when it is another response.
func itemsIn(r []imaptest.Tree) map[string]imaptest.Tree {
	if len(r) != 4 || !r[2].Is("FETCH") {
		return nil
	}
	items := map[string]imaptest.Tree{}
	for i := 0; i+1 < len(r[3].List); i += 2 {
		items[strings.ToUpper(r[3].At(i).Text)] = r[3].At(i + 1)
	}
	return items
}

func flagsIn(items map[string]imaptest.Tree) string {
	var flags []string
	for _, f := range items["FLAGS"].List {
		if !f.Is(`\Recent`) {
			flags = append(flags, f.Text)
		}
	}
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// A crashWriter is one of the clients.
type crashWriter struct {
	c         *campaign
	name      string
	rnd       *rand.Rand
	conn      *crashConn
	selected  string
	now, then crashState // then is what the command under way leads to; nil when there is none
	boxes     int        // made so far
}

func newCrashWriter(c *campaign, n int) *crashWriter {
	w := &crashWriter{c: c, name: "w" + strconv.Itoa(n), now: crashState{}}
	for _, name := range crashShared {
		w.now[name] = newCrashBox()
	}
	return w
}

// run works until the server is gone.
func (w *crashWriter) run(p *process, rnd *rand.Rand, acknowledged func()) {
	var err error
	if w.conn, err = dialIMAP(p.IMAP, crashAccount, w.c.apps[crashAccount]); err != nil {
		if !w.c.killed.Load() {
			w.c.t.Errorf("%s, before the kill: %v\n%s", w.name, err, p.logText())
		}
		return
	}
	defer w.conn.conn.Close()
	w.rnd, w.selected = rnd, ""
	ways := []func() error{
		w.append, w.append, w.append, w.multiAppend, w.copy, w.copy, w.move, w.move, w.store, w.store, w.storeSince,
		w.expunge, w.replace, w.create, w.rename, w.remove, w.grant, w.annotate, w.refused,
	}
	for err == nil {
		way := ways[rnd.IntN(len(ways))]
		if w.name == "w0" && len(w.now["S0"].mail) < crashSeeds/2 {
			way = w.seed
		}
		if err = way(); err == nil {
			acknowledged()
		}
	}
	if _, isRefused := err.(*refused); isRefused || !w.c.killed.Load() {
		w.c.t.Errorf("%s, before the kill: %v\n%s", w.name, err, p.logText())
	}
}

// do gives a command that leads to a state. finish takes from the answer what is known only now.
func (w *crashWriter) do(then crashState, finish func([][]imaptest.Tree) error, line string, literals ...[]byte) error {
	w.then = then
	responses, err := w.conn.ok(line, literals...)
	if err != nil {
		return err
	}
	if finish != nil {
		if err := finish(responses); err != nil {
			return &refused{fmt.Sprintf("%s: %v: %v", line, err, responses)}
		}
	}
	w.now, w.then = then, nil
	w.c.heard(w.selected, responses)
	return nil
}

func (w *crashWriter) open(name string) error {
	if w.selected == name {
		return nil
	}
	w.selected = name
	_, err := w.conn.ok("SELECT " + name)
	return err
}

// box draws a mailbox.
func (w *crashWriter) box() string {
	names := slices.Sorted(maps.Keys(w.now))
	return names[w.rnd.IntN(len(names))]
}

// private draws a mailbox of the writer's own, or "".
func (w *crashWriter) private() string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(w.now)), func(name string) bool { return slices.Contains(crashShared, name) })
	if len(names) == 0 {
		return ""
	}
	return names[w.rnd.IntN(len(names))]
}

// some draws messages and selects their mailbox.
func (w *crashWriter) some() (name string, uids []uint32, err error) {
	name = w.box()
	uids = slices.Sorted(maps.Keys(w.now[name].mail))
	w.rnd.Shuffle(len(uids), func(i, j int) { uids[i], uids[j] = uids[j], uids[i] })
	uids = uids[:min(len(uids), 1+w.rnd.IntN(6))]
	slices.Sort(uids)
	return name, uids, w.open(name)
}

func (w *crashWriter) flags() string {
	var flags []string
	for _, f := range crashFlags {
		if w.rnd.IntN(3) == 0 {
			flags = append(flags, f)
		}
	}
	return strings.Join(flags, " ")
}

// letters are n new messages, as the words of an APPEND.
func (w *crashWriter) letters(n int) (mail []crashMail, line string, literals [][]byte) {
	for range n {
		id, text := w.c.letter(w)
		m := crashMail{id, w.flags()}
		mail = append(mail, m)
		line += " (" + m.flags + ") {}"
		literals = append(literals, text)
	}
	return mail, line, literals
}

func (w *crashWriter) appendTo(name string, n int) error {
	mail, line, literals := w.letters(n)
	then := w.now.clone()
	then[name].coming = mail
	return w.do(then, func(r [][]imaptest.Tree) error { return then[name].arrived(appendUIDs(r)) }, "APPEND "+name+line, literals...)
}

func appendUIDs(r [][]imaptest.Tree) []uint32 {
	if code := codeIn(r, "APPENDUID"); len(code) == 2 {
		return numbersOf(code[1])
	}
	return nil
}

func (w *crashWriter) append() error      { return w.appendTo(w.box(), 1) }
func (w *crashWriter) multiAppend() error { return w.appendTo(w.box(), 2+w.rnd.IntN(5)) }
func (w *crashWriter) seed() error        { return w.appendTo("S0", crashSeeds) }

func (w *crashWriter) transfer(verb string) error {
	from, uids, err := w.some()
	to := w.box()
	if err != nil || len(uids) == 0 {
		return err
	}
	then := w.now.clone()
	for _, uid := range uids {
		then[to].coming = append(then[to].coming, then[from].mail[uid])
		if verb == "MOVE" {
			delete(then[from].mail, uid)
		}
	}
	copied := func(r [][]imaptest.Tree) error {
		code := codeIn(r, "COPYUID")
		if len(code) != 3 || !slices.Equal(numbersOf(code[1]), uids) {
			return fmt.Errorf("COPYUID %q of %d", code, uids)
		}
		return then[to].arrived(numbersOf(code[2]))
	}
	return w.do(then, copied, "UID "+verb+" "+setOf(uids)+" "+to)
}

func (w *crashWriter) copy() error { return w.transfer("COPY") }
func (w *crashWriter) move() error { return w.transfer("MOVE") }

func (w *crashWriter) store() error {
	name, uids, err := w.some()
	if err != nil || len(uids) == 0 {
		return err
	}
	then, flags := w.now.clone(), w.flags()
	op := []string{"", "+", "-"}[w.rnd.IntN(3)]
	for _, uid := range uids {
		m := then[name].mail[uid]
		m.flags = reflagged(m.flags, op, flags)
		then[name].mail[uid] = m
	}
	return w.do(then, nil, "UID STORE "+setOf(uids)+" "+op+"FLAGS ("+flags+")")
}

func reflagged(is, op, flags string) string {
	all, given := strings.Fields(is), strings.Fields(flags)
	kept := slices.DeleteFunc(all, func(f string) bool { return op == "" || slices.Contains(given, f) })
	if op != "-" {
		kept = append(kept, given...)
	}
	slices.Sort(kept)
	return strings.Join(kept, " ")
}

// storeSince changes a message if it is as it was, and then with a modseq that is too old, which must be refused.
func (w *crashWriter) storeSince() error {
	name, uids, err := w.some()
	if err != nil || len(uids) == 0 {
		return err
	}
	uid := uids[0]
	r, err := w.conn.ok(fmt.Sprintf("UID FETCH %d (MODSEQ)", uid))
	if err != nil {
		return err
	}
	var modseq uint64
	for _, line := range r {
		if items := itemsIn(line); items != nil && items["UID"].Is(strconv.Itoa(int(uid))) {
			modseq, _ = strconv.ParseUint(items["MODSEQ"].At(0).Text, 10, 64)
		}
	}
	if modseq < 2 {
		return &refused{fmt.Sprintf("%s: UID %d has no modseq: %v", name, uid, r)}
	}
	then := w.now.clone()
	then[name].mail[uid] = crashMail{then[name].mail[uid].id, "crash"}
	if err := w.do(then, nil, fmt.Sprintf("UID STORE %d (UNCHANGEDSINCE %d) FLAGS (crash)", uid, modseq)); err != nil {
		return err
	}
	modified := func(r [][]imaptest.Tree) error {
		if code := codeIn(r, "MODIFIED"); len(code) != 1 || code[0] != strconv.Itoa(int(uid)) {
			return fmt.Errorf("MODIFIED %q", code)
		}
		return nil
	}
	return w.do(w.now.clone(), modified, fmt.Sprintf("UID STORE %d (UNCHANGEDSINCE %d) FLAGS ()", uid, modseq-1))
}

func (w *crashWriter) expunge() error {
	name, uids, err := w.some()
	if err != nil || len(uids) == 0 {
		return err
	}
	then := w.now.clone()
	for _, uid := range uids {
		m := then[name].mail[uid]
		m.flags = reflagged(m.flags, "+", `\Deleted`)
		then[name].mail[uid] = m
	}
	if err := w.do(then, nil, "UID STORE "+setOf(uids)+` +FLAGS.SILENT (\Deleted)`); err != nil {
		return err
	}
	then = w.now.clone()
	for _, uid := range uids {
		delete(then[name].mail, uid)
	}
	return w.do(then, nil, "UID EXPUNGE "+setOf(uids))
}

func (w *crashWriter) replace() error {
	name, uids, err := w.some()
	to := w.box()
	if err != nil || len(uids) == 0 {
		return err
	}
	mail, line, literals := w.letters(1)
	then := w.now.clone()
	delete(then[name].mail, uids[0])
	then[to].coming = mail
	arrived := func(r [][]imaptest.Tree) error { return then[to].arrived(appendUIDs(r)) }
	return w.do(then, arrived, fmt.Sprintf("UID REPLACE %d %s%s", uids[0], to, line), literals...)
}

func (w *crashWriter) create() error {
	w.boxes++
	name := fmt.Sprintf("%s-%d", w.name, w.boxes%4)
	if w.now[name] != nil {
		return nil
	}
	then := w.now.clone()
	then[name] = newCrashBox()
	return w.do(then, nil, "CREATE "+name)
}

func (w *crashWriter) rename() error {
	from, to := w.private(), fmt.Sprintf("%s-%d", w.name, 4+w.rnd.IntN(3))
	if from == "" || w.now[to] != nil {
		return nil
	}
	then := w.now.clone()
	then[to] = then[from]
	delete(then, from)
	return w.do(then, nil, "RENAME "+from+" "+to)
}

func (w *crashWriter) remove() error {
	name := w.private()
	if name == "" || w.rnd.IntN(2) == 0 {
		return nil
	}
	if w.selected == name {
		w.selected = ""
		if _, err := w.conn.ok("UNSELECT"); err != nil {
			return err
		}
	}
	then := w.now.clone()
	delete(then, name)
	return w.do(then, nil, "DELETE "+name)
}

func (w *crashWriter) grant() error {
	name, who := w.private(), receiver(2*w.rnd.IntN(2))
	if name == "" {
		return nil
	}
	then := w.now.clone()
	if w.rnd.IntN(3) == 0 {
		delete(then[name].facts, who)
		return w.do(then, nil, "DELETEACL "+name+" "+who)
	}
	rights := []string{"lr", "lrs", "lrswi"}[w.rnd.IntN(3)]
	then[name].facts[who] = rights
	return w.do(then, nil, "SETACL "+name+" "+who+" "+rights)
}

func (w *crashWriter) annotate() error {
	name, entry := w.private(), crashEntries[w.rnd.IntN(len(crashEntries))]
	if name == "" {
		return nil
	}
	then := w.now.clone()
	if w.rnd.IntN(3) == 0 {
		delete(then[name].facts, entry)
		return w.do(then, nil, "SETMETADATA "+name+" ("+entry+" NIL)")
	}
	value := strings.Repeat("v", 1+w.rnd.IntN(500))
	then[name].facts[entry] = value
	return w.do(then, nil, "SETMETADATA "+name+" ("+entry+` "`+value+`")`)
}

// refused gives commands that cannot be done, and of which nothing may stay.
func (w *crashWriter) refused() error {
	name, uids, err := w.some()
	if err != nil || len(uids) == 0 {
		return err
	}
	_, line, literals := w.letters(2)
	commands := []string{
		"APPEND nowhere" + line, "CREATE " + name, "DELETE nowhere", "RENAME " + name + " " + crashShared[0], "RENAME nowhere nowhere2",
		"UID COPY " + setOf(uids) + " nowhere", "UID MOVE " + setOf(uids) + " nowhere", "SETACL " + name + " nobody@example.test lr",
		"UID REPLACE 4000000000 " + name + " {}", "SETMETADATA nowhere (/private/comment \"x\")",
	}
	command := commands[w.rnd.IntN(len(commands))]
	w.then = w.now.clone()
	responses, err := w.conn.say(command, literals[:strings.Count(command, "{}")]...)
	if err != nil {
		return err
	}
	w.then = nil
	if !lastOf(responses)[1].Is("NO") {
		return &refused{fmt.Sprintf("%s was answered %v", command, lastOf(responses))}
	}
	return nil
}

// A crashLetter is a message that a client has sent.
type crashLetter struct {
	writer, thread string
	words          []int
	text           []byte
}

// letter makes a message: half of them answer another of the client's that was there.
func (c *campaign) letter(w *crashWriter) (id string, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	id = fmt.Sprintf("%s.%d", w.name, c.seq)
	l := &crashLetter{writer: w.name, thread: id}
	header := fmt.Sprintf("From: <s@example.test>\r\nMessage-ID: <%s@crash.test>\r\nX-Seq: %s\r\nSubject: letter\r\n", id, id)
	if parent := w.parent(); parent != "" {
		l.thread = c.letters[parent].thread
		header += fmt.Sprintf("In-Reply-To: <%s@crash.test>\r\n", parent)
	}
	var lines strings.Builder
	for range 1 + w.rnd.IntN(20) {
		word := w.rnd.IntN(crashWords)
		l.words = append(l.words, word)
		fmt.Fprintf(&lines, "%s and %s stand here\r\n", crashWord(word), strconv.FormatUint(w.rnd.Uint64(), 36))
	}
	if w.rnd.IntN(3) == 0 {
		header += "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
		encoded := base64.StdEncoding.EncodeToString([]byte(lines.String()))
		lines.Reset()
		for part := range slices.Chunk([]byte(encoded), 76) {
			lines.WriteString(string(part) + "\r\n")
		}
	}
	l.text = []byte(header + "\r\n" + lines.String())
	c.letters[id] = l
	return id, l.text
}

// parent draws a message that is there.
func (w *crashWriter) parent() string {
	if w.rnd.IntN(2) == 0 {
		return ""
	}
	for _, m := range w.now[w.box()].mail {
		return m.id
	}
	return ""
}

func crashWord(n int) string { return fmt.Sprintf("Wort%dx", n) }

// A crashView is what a client knew of a mailbox before a kill.
type crashView struct {
	validity, modseq uint64
	flags            map[uint32]string
}

// told changes what is known as a response says.
func (v *crashView) told(r []imaptest.Tree) {
	if items := itemsIn(r); items != nil {
		if uid, ok := items["UID"].Number(); ok {
			v.flags[uid] = flagsIn(items)
		}
	}
	if len(r) > 2 && r[1].Is("VANISHED") {
		for _, uid := range numbersOf(r[len(r)-1].Text) {
			delete(v.flags, uid)
		}
	}
}

// follower opens mailboxes and searches in them until the server is gone, and keeps what it knew of them.
func (c *campaign) follower(p *process, rnd *rand.Rand) {
	conn, err := dialIMAP(p.IMAP, crashAccount, c.apps[crashAccount])
	if err != nil {
		return
	}
	defer conn.conn.Close()
	for {
		name := crashShared[rnd.IntN(len(crashShared))]
		r, err := conn.ok("SELECT " + name)
		if err != nil {
			return
		}
		v := &crashView{numberIn(r, "UIDVALIDITY"), numberIn(r, "HIGHESTMODSEQ"), map[uint32]string{}}
		if r, err = conn.ok("UID FETCH 1:* (FLAGS)"); err != nil {
			return
		}
		for _, line := range r {
			v.told(line)
		}
		c.keep(name, v)
		if _, err := conn.ok("UID SEARCH TEXT " + crashWord(rnd.IntN(crashWords))); err != nil {
			return
		}
	}
}

// keep keeps a few of the views of a mailbox.
func (c *campaign) keep(name string, v *crashView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.views[name] = append(c.views[name], v)
	if n := len(c.views[name]); n > 4 {
		c.views[name] = slices.Delete(c.views[name], n/2, n/2+1)
	}
}

// A crashPast is the highest numbers that were told of a mailbox, and what was said of each message there.
type crashPast struct {
	validity, next, modseq uint64
	modseqs                map[uint32]uint64
	identity               map[uint32]string
}

func (c *campaign) past(mailbox string) *crashPast {
	if c.pasts[mailbox] == nil {
		c.pasts[mailbox] = &crashPast{modseqs: map[uint32]uint64{}, identity: map[uint32]string{}}
	}
	return c.pasts[mailbox]
}

// heard notes the modseqs that were told of a shared mailbox.
func (c *campaign) heard(name string, responses [][]imaptest.Tree) {
	if !slices.Contains(crashShared, name) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range responses {
		items := itemsIn(r)
		modseq, _ := strconv.ParseUint(items["MODSEQ"].At(0).Text, 10, 64)
		uid, ok := items["UID"].Number()
		if p := c.past(c.shared[name]); ok && modseq > 0 {
			p.modseq, p.modseqs[uid] = max(p.modseq, modseq), max(p.modseqs[uid], modseq)
		}
	}
}

// imapLoad runs the clients.
func (c *campaign) imapLoad(p *process, clients *sync.WaitGroup, acknowledged func()) {
	for i, w := range c.writers {
		rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), uint64(i)))
		clients.Go(func() { w.run(p, rnd, acknowledged) })
	}
	rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), 99))
	clients.Go(func() { c.follower(p, rnd) })
}

// imapBegin makes the mailboxes that all use, in a new store.
func (c *campaign) imapBegin(p *process) {
	c.t.Helper()
	if c.writers != nil {
		return
	}
	for i := range crashWriters {
		c.writers = append(c.writers, newCrashWriter(c, i))
	}
	conn, err := dialIMAP(p.IMAP, crashAccount, c.apps[crashAccount])
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.conn.Close()
	for _, name := range crashShared {
		r, err := conn.ok("CREATE " + name)
		if err != nil {
			c.t.Fatal(err)
		}
		c.shared[name] = strings.Trim(strings.Join(codeIn(r, "MAILBOXID"), ""), "()")
	}
}

// imapAudit reads all mailboxes of the clients and holds them against what each knows.
func (c *campaign) imapAudit(p *process) {
	c.t.Helper()
	conn, err := dialIMAP(p.IMAP, crashAccount, c.apps[crashAccount])
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.conn.Close()
	a := &crashAudit{c: c, conn: conn, there: map[string]crashState{}, threads: map[string]string{}}
	for _, w := range c.writers {
		a.there[w.name] = crashState{}
		for _, name := range crashShared {
			a.there[w.name][name] = newCrashBox()
		}
	}
	if err := a.read(); err != nil {
		c.t.Fatal(err)
	}
	for _, w := range c.writers {
		w.settle(a.there[w.name])
	}
}

// settle finds out which of the two right states there is.
func (w *crashWriter) settle(there crashState) {
	w.c.t.Helper()
	before, after := w.now.differs(there), "no command was under way"
	if w.then != nil {
		w.c.underway++
		after = w.then.differs(there)
	}
	switch {
	case before == "":
	case after == "":
		w.c.underwayDone++
	default:
		w.c.t.Errorf("%s: after its last answer: %s; after the command under way: %s", w.name, before, after)
	}
	w.now, w.then = there, nil
}

// A crashAudit reads what there is.
type crashAudit struct {
	c       *campaign
	conn    *crashConn
	there   map[string]crashState // by writer
	threads map[string]string     // THREADIDs by the thread that they stand for
}

func (a *crashAudit) read() error {
	list, err := a.conn.ok(`LIST "" *`)
	if err != nil {
		return err
	}
	for _, r := range list {
		if len(r) < 5 || !r[1].Is("LIST") {
			continue
		}
		name := r[4].Text
		owner, _, private := strings.Cut(name, "-")
		if private && a.there[owner] != nil {
			a.there[owner][name] = newCrashBox()
			err = a.facts(name, a.there[owner][name])
		} else if !slices.Contains(crashShared, name) {
			continue
		}
		if err == nil {
			err = a.mailbox(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// facts reads grants and annotations.
func (a *crashAudit) facts(name string, b *crashBox) error {
	r, err := a.conn.ok("GETACL " + name)
	if err != nil {
		return err
	}
	metadata, err := a.conn.ok("GETMETADATA " + name + " (" + strings.Join(crashEntries, " ") + ")")
	for _, line := range append(r, metadata...) {
		switch {
		case line[1].Is("ACL"):
			for i := 3; i+1 < len(line); i += 2 {
				if who := line[i].Text; who != crashAccount {
					b.facts[who] = line[i+1].Text
				}
			}
		case line[1].Is("METADATA"):
			for i := 0; i+1 < len(line[3].List); i += 2 {
				if line[3].At(i+1).Kind != imaptest.Nil {
					b.facts[line[3].At(i).Text] = line[3].At(i + 1).Text
				}
			}
		}
	}
	return err
}

func (a *crashAudit) mailbox(name string) error {
	c := a.c
	r, err := a.conn.ok("SELECT " + name)
	if err != nil {
		return err
	}
	id := strings.Trim(strings.Join(codeIn(r, "MAILBOXID"), ""), "()")
	p := c.past(id)
	validity, next, modseq := numberIn(r, "UIDVALIDITY"), numberIn(r, "UIDNEXT"), numberIn(r, "HIGHESTMODSEQ")
	switch {
	case p.validity == 0 && validity <= c.named[name]:
		c.t.Errorf("%s is another mailbox now, and UIDVALIDITY is %d after %d", name, validity, c.named[name])
	case p.validity != 0 && p.validity != validity:
		c.t.Errorf("%s: UIDVALIDITY changed from %d to %d", name, p.validity, validity)
	case next < p.next || modseq < p.modseq:
		c.t.Errorf("%s: UIDNEXT and modseq were %d and %d, now %d and %d", name, p.next, p.modseq, next, modseq)
	}
	p.validity, p.next, p.modseq = validity, next, modseq
	c.named[name] = max(c.named[name], validity)
	truth := &crashView{validity: validity, modseq: modseq, flags: map[uint32]string{}}
	words, err := a.messages(name, p, truth)
	if err == nil {
		err = a.search(name, words)
	}
	for _, v := range c.views[name] {
		if err == nil {
			err = a.resync(name, v, truth)
		}
	}
	return err
}

// messages reads a mailbox, and returns which messages have which word.
func (a *crashAudit) messages(name string, p *crashPast, truth *crashView) (words map[int][]uint32, err error) {
	r, err := a.conn.ok("UID FETCH 1:* (UID FLAGS MODSEQ EMAILID THREADID BODY.PEEK[])")
	words = map[int][]uint32{}
	for _, line := range r {
		truth.told(line)
		items := itemsIn(line)
		if items == nil {
			continue
		}
		uid, _ := items["UID"].Number()
		modseq, _ := strconv.ParseUint(items["MODSEQ"].At(0).Text, 10, 64)
		if modseq < p.modseqs[uid] || modseq > p.modseq || uint64(uid) >= p.next {
			a.c.t.Errorf("%s: UID %d (UIDNEXT %d) has modseq %d after %d, the mailbox %d", name, uid, p.next, modseq, p.modseqs[uid], p.modseq)
		}
		p.modseqs[uid] = modseq
		a.message(name, uid, p, items)
		if l := a.c.letters[seqOf(items["BODY[]"].Text)]; l != nil {
			for _, word := range slices.Compact(slices.Sorted(slices.Values(l.words))) {
				words[word] = append(words[word], uid)
			}
		}
	}
	return words, err
}

func seqOf(text string) string {
	_, rest, _ := strings.Cut(text, "\r\nX-Seq: ")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

// message holds one message against what was sent and what was said of it before.
func (a *crashAudit) message(name string, uid uint32, p *crashPast, items map[string]imaptest.Tree) {
	text := items["BODY[]"].Text
	id := seqOf(text)
	l := a.c.letters[id]
	if l == nil || text != string(l.text) {
		a.c.t.Errorf("%s: UID %d is no message that was sent, or a changed one: %.200q", name, uid, text)
		return
	}
	thread := items["THREADID"].At(0).Text
	if known := a.threads[l.thread]; known != "" && known != thread {
		a.c.t.Errorf("%s: UID %d has thread %s, and its thread is %s", name, uid, thread, known)
	}
	a.threads[l.thread] = thread
	identity := id + " " + items["EMAILID"].At(0).Text + " " + thread
	if was := p.identity[uid]; was != "" && was != identity {
		a.c.t.Errorf("%s: UID %d is %s, and was %s", name, uid, identity, was)
	}
	p.identity[uid] = identity
	box := a.there[l.writer][name]
	if box == nil {
		a.c.t.Errorf("%s: UID %d is of %s", name, uid, l.writer)
		return
	}
	box.mail[uid] = crashMail{id, flagsIn(items)}
}

// search holds the answers of SEARCH against the messages.
func (a *crashAudit) search(name string, words map[int][]uint32) error {
	for range 4 {
		word := a.c.rnd.IntN(crashWords)
		r, err := a.conn.ok("UID SEARCH TEXT " + strings.ToLower(crashWord(word)))
		if err != nil {
			return err
		}
		var got []uint32
		for _, line := range r {
			if !line[1].Is("SEARCH") {
				continue
			}
			for _, n := range line[2:] {
				if uid, ok := n.Number(); ok {
					got = append(got, uid)
				}
			}
		}
		slices.Sort(words[word])
		if !slices.Equal(got, words[word]) {
			a.c.t.Errorf("%s: %q is in %d, and was found in %d", name, crashWord(word), words[word], got)
		}
	}
	return nil
}

// resync opens a mailbox as a client does that knows what it was.
func (a *crashAudit) resync(name string, v, truth *crashView) error {
	v = &crashView{v.validity, v.modseq, maps.Clone(v.flags)}
	r, err := a.conn.ok(fmt.Sprintf("SELECT %s (QRESYNC (%d %d))", name, v.validity, v.modseq))
	for _, line := range r {
		v.told(line)
	}
	if err == nil && !maps.Equal(v.flags, truth.flags) {
		a.c.t.Errorf("%s: a client that knew modseq %d now knows %d messages; there are %d, or with other flags", name, v.modseq, len(v.flags), len(truth.flags))
	}
	return err
}
