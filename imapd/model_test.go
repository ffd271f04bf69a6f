package imapd

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// A believer is a client that knows nothing but what the server tells it: untagged responses, and after a SELECT with
// QRESYNC what has changed. It holds the server to what it may say when. In the end it must know what the server has.
type believer struct {
	*raw
	fail    func(format string, args ...any)
	qresync bool // else CONDSTORE
	alone   bool // nobody else changes anything while it gives a command
	tags    int

	box      string // "" when none is selected
	uids     []uint32
	flags    map[uint32]string
	validity string
	highest  uint64 // modseq up to which all is known
	heard    uint64 // the greatest modseq heard of
	kept     map[string]keeping

	gone    bool                      // the command under way may be answered with expunges
	opening bool                      // it is a SELECT
	silent  func(flags string) string // what the STORE under way does, if it is silent; else nil
}

// A keeping is what a client remembers of a mailbox.
type keeping struct {
	validity string
	highest  uint64
	flags    map[uint32]string
}

func (h *house) believer(t testing.TB, fail func(string, ...any), qresync bool) *believer {
	c := &believer{fail: fail, qresync: qresync, kept: map[string]keeping{}}
	c.connect(h, t)
	return c
}

func (c *believer) connect(h *house, t testing.TB) {
	c.raw = h.loggedIn()
	c.raw.t = t
	c.box = ""
	c.say("ENABLE " + map[bool]string{true: "QRESYNC", false: "CONDSTORE"}[c.qresync])
}

// lose breaks the connection off and makes another.
func (c *believer) lose(h *house, t testing.TB) {
	c.keep()
	c.conn.Close()
	c.connect(h, t)
}

// say gives a command that must be OK or NO, and takes in what comes before its end.
func (c *believer) say(command string) string {
	c.tags++
	tag := fmt.Sprint("t", c.tags)
	c.send(tag + " " + command + "\r\n")
	return c.until(tag, command)
}

func (c *believer) until(tag, command string) string {
	verb := strings.TrimPrefix(command, "UID ")
	verb, _, _ = strings.Cut(verb, " ")
	byNumber := !strings.HasPrefix(command, "UID ") && (verb == "FETCH" || verb == "STORE" || verb == "SEARCH")
	c.gone, c.opening = !byNumber, verb == "SELECT"
	for {
		line := c.line()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			if strings.HasPrefix(rest, "BAD") {
				c.fail("%q is answered %q", command, line)
			}
			c.code(rest)
			if c.gone && !slices.Contains(c.uids, 0) { // nothing is held back, and nothing is to be asked for
				c.highest = max(c.highest, c.heard)
			}
			return rest
		}
		c.take(line)
	}
}

var (
	numberLine   = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
	fetchLine    = regexp.MustCompile(`^\* (\d+) FETCH \((.*)\)$`)
	vanishedLine = regexp.MustCompile(`^\* VANISHED (\(EARLIER\) )?([0-9:,]+)$`)
	codeOf       = regexp.MustCompile(`\[(UIDVALIDITY|HIGHESTMODSEQ) ([^\]]+)\]`)
	ofFlags      = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	ofUID        = regexp.MustCompile(`UID (\d+)`)
	ofModSeq     = regexp.MustCompile(`MODSEQ \((\d+)\)`)
)

// take takes in an untagged response.
func (c *believer) take(line string) {
	if m := numberLine.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		c.number(n, m[2])
		return
	}
	if m := fetchLine.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		c.fetch(n, m[2])
		return
	}
	if m := vanishedLine.FindStringSubmatch(line); m != nil {
		c.vanish(setOf(m[2]), m[1] != "")
		return
	}
	c.code(line)
}

func (c *believer) code(line string) {
	m := codeOf.FindStringSubmatch(line)
	if m == nil {
		return
	}
	switch n, _ := strconv.ParseUint(m[2], 10, 64); m[1] {
	case "UIDVALIDITY":
		c.validity = m[2]
	case "HIGHESTMODSEQ":
		c.heard = max(c.heard, n)
	}
}

func (c *believer) number(n int, what string) {
	switch what {
	case "EXISTS":
		if n < len(c.uids) && !c.opening {
			c.fail("%d EXISTS after %d", n, len(c.uids))
		}
		for len(c.uids) < n {
			c.uids = append(c.uids, 0)
		}
	case "EXPUNGE":
		if !c.gone || c.qresync || n < 1 || n > len(c.uids) {
			c.fail("%d EXPUNGE of %d, when it may come: %t", n, len(c.uids), c.gone)
			return
		}
		delete(c.flags, c.uids[n-1])
		c.uids = slices.Delete(c.uids, n-1, n)
	}
}

func (c *believer) vanish(gone []uint32, earlier bool) {
	if !c.gone || !c.qresync || earlier && !c.opening {
		c.fail("VANISHED %v, earlier %t, at the wrong time", gone, earlier)
	}
	for _, uid := range gone {
		i := slices.Index(c.uids, uid)
		if earlier {
			delete(c.flags, uid)
			continue
		}
		if i < 0 {
			i = c.unasked(uid)
		}
		if i < 0 {
			c.fail("VANISHED %d, which is not known: %v", uid, c.uids)
			return
		}
		delete(c.flags, uid)
		c.uids = slices.Delete(c.uids, i, i+1)
	}
}

// unasked returns the place of a message whose UID was not asked for, or -1.
func (c *believer) unasked(uid uint32) int {
	found := -1
	for i, u := range c.uids {
		switch {
		case u > uid:
			return found
		case u == 0:
			found = i
		default:
			found = -1
		}
	}
	return found
}

func (c *believer) fetch(n int, items string) {
	if n < 1 || n > len(c.uids) {
		c.fail("%d FETCH of %d", n, len(c.uids))
		return
	}
	if m := ofUID.FindStringSubmatch(items); m != nil {
		uid, _ := strconv.ParseUint(m[1], 10, 32)
		if was := c.uids[n-1]; was != 0 && was != uint32(uid) {
			c.fail("%d was message %d, and is %d", n, was, uid)
		}
		c.uids[n-1] = uint32(uid)
	}
	uid := c.uids[n-1]
	if m := ofFlags.FindStringSubmatch(items); m != nil && uid != 0 {
		c.flags[uid] = normal(strings.Fields(m[1]))
	} else if was, known := c.flags[uid]; m == nil && known && c.silent != nil {
		c.flags[uid] = c.silent(was) // its modseq alone says that it was done
	}
	if m := ofModSeq.FindStringSubmatch(items); m != nil {
		modseq, _ := strconv.ParseUint(m[1], 10, 64)
		c.heard = max(c.heard, modseq)
	}
}

func normal(flags []string) string {
	flags = slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f == `\Recent` })
	slices.Sort(flags)
	return strings.Join(slices.Compact(flags), " ")
}

func setOf(text string) (list []uint32) {
	for part := range strings.SplitSeq(text, ",") {
		a, b, ranged := strings.Cut(part, ":")
		from, _ := strconv.ParseUint(a, 10, 32)
		to := from
		if ranged {
			to, _ = strconv.ParseUint(b, 10, 32)
		}
		for n := from; n <= to; n++ {
			list = append(list, uint32(n))
		}
	}
	return list
}

// keep remembers the mailbox that is left.
func (c *believer) keep() {
	if c.box != "" {
		c.kept[c.box] = keeping{c.validity, c.highest, maps.Clone(c.flags)}
	}
}

// open selects a mailbox, with what is remembered of it.
func (c *believer) open(name string) {
	c.keep()
	k, known := c.kept[name]
	c.box, c.uids, c.flags, c.validity, c.highest, c.heard = name, nil, map[uint32]string{}, "", 0, 0
	if !c.qresync || !known || k.highest == 0 {
		c.say("SELECT " + name)
		c.ask()
		return
	}
	c.flags = k.flags
	c.say(fmt.Sprintf("SELECT %s (QRESYNC (%s %d))", name, k.validity, k.highest))
	if c.validity != k.validity {
		c.fail("UIDVALIDITY was %s and is %s", k.validity, c.validity)
	}
	order := slices.Sorted(maps.Keys(c.flags))
	came := len(c.uids) - len(order) // since the mailbox was opened
	if came < 0 || came > 0 && c.alone {
		c.fail("there are %d messages, and after QRESYNC %d are known: %v", len(c.uids), len(order), order)
		return
	}
	order = append(order, make([]uint32, came)...)
	for i, uid := range c.uids {
		if uid != 0 && order[i] != 0 && uid != order[i] {
			c.fail("message %d is %d, and by what is known %d", i+1, uid, order[i])
		}
	}
	c.uids = order
	c.ask()
}

// ask asks for the messages of which no UID is known.
func (c *believer) ask() {
	for {
		i := slices.Index(c.uids, 0)
		if i < 0 {
			return
		}
		c.say(fmt.Sprintf("FETCH %d:* (UID FLAGS)", i+1))
		c.say("NOOP")
	}
}

// change gives a STORE. When the server is to say nothing of flags, it still says which messages have changed.
func (c *believer) change(uid bool, set []uint32, op string, silent bool, flags []string, since uint64) {
	command, suffix, condition := "STORE", "", ""
	if uid {
		command = "UID STORE"
	}
	if silent {
		suffix = ".SILENT"
		c.silent = func(was string) string { return changedBy(was, op, flags) }
	}
	if since > 0 {
		condition = fmt.Sprintf("(UNCHANGEDSINCE %d) ", since)
	}
	c.say(fmt.Sprintf("%s %s %s%sFLAGS%s (%s)", command, joined(set), condition, op, suffix, strings.Join(flags, " ")))
	c.silent = nil
}

func changedBy(was, op string, flags []string) string {
	is := strings.Fields(was)
	switch op {
	case "+":
		return normal(append(is, flags...))
	case "-":
		return normal(slices.DeleteFunc(is, func(f string) bool { return slices.Contains(flags, f) }))
	}
	return normal(flags)
}

func joined(set []uint32) string {
	var words []string
	for _, n := range set {
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ",")
}

// truth is what the server has.
func (h *house) truth(name string) map[uint32]string {
	mb, err := h.config.Mailboxes.Get(h.owner, name)
	h.must(err)
	all := map[uint32]string{}
	for m, err := range h.config.Mailboxes.Messages(mb.ID, nil) {
		h.must(err)
		all[m.UID] = normal(m.Flags)
	}
	return all
}

// agrees holds what a client knows against the truth, when nobody changes anything.
func (c *believer) agrees(h *house) {
	if c.box == "" {
		return
	}
	c.say("NOOP")
	c.ask()
	if want := h.truth(c.box); !maps.Equal(c.flags, want) || !slices.Equal(c.uids, slices.Sorted(maps.Keys(want))) {
		c.fail("of %s the client knows %v, in order %v; there are %v", c.box, c.flags, c.uids, want)
	}
}

var modelKeywords = []string{`\Seen`, `\Flagged`, `\Deleted`, "k"}

const modelText = "Subject: x\r\n\r\n"

// chance is where decisions come from: rapid, or a plain generator.
type chance interface{ below(n int) int }

type drawn struct{ t *rapid.T }

func (d drawn) below(n int) int { return rapid.IntRange(0, n-1).Draw(d.t, "n") }

type random struct{ *rand.Rand }

func (r random) below(n int) int { return r.IntN(n) }

func someFlags(by chance) []string {
	var flags []string
	for _, f := range modelKeywords {
		if by.below(2) == 0 {
			flags = append(flags, f)
		}
	}
	return flags
}

// some returns some of the messages, by UID or by number; nil is none.
func (c *believer) some(by chance) (uid bool, set []uint32) {
	uid = by.below(2) == 0
	for i, u := range c.uids {
		if u == 0 || by.below(2) != 0 {
			continue
		}
		if uid {
			set = append(set, u)
		} else {
			set = append(set, uint32(i+1))
		}
	}
	return uid, set
}

// act does one of what clients do.
func (c *believer) act(by chance, boxes []string) {
	other := boxes[by.below(len(boxes))]
	uid, set := false, []uint32(nil)
	if c.box != "" {
		uid, set = c.some(by)
	}
	prefix := map[bool]string{true: "UID ", false: ""}[uid]
	switch what := by.below(12); {
	case what == 11:
		c.add(other, someFlags(by))
	case c.box == "" || what == 10 && by.below(2) == 0:
		c.open(other)
	case what == 9:
		c.say("EXPUNGE")
	case len(set) == 0:
		c.say("NOOP")
	case what < 6:
		since := uint64(0)
		if by.below(3) == 0 {
			since = c.highest
		}
		c.change(uid, set, []string{"+", "-", ""}[by.below(3)], by.below(2) == 0, someFlags(by), since)
	case what == 6:
		c.say(fmt.Sprintf("%sCOPY %s %s", prefix, joined(set[:1]), other))
	case what == 7:
		c.say(fmt.Sprintf("%sMOVE %s %s", prefix, joined(set[:1]), other))
	case uid:
		c.say("UID EXPUNGE " + joined(set))
	default:
		c.say(fmt.Sprintf("FETCH %s FLAGS", joined(set)))
	}
}

// add appends a message.
func (c *believer) add(name string, flags []string) {
	c.say(fmt.Sprintf("APPEND %s (%s) {%d+}\r\n%s", name, strings.Join(flags, " "), len(modelText), modelText))
}

// idle listens while others act.
func (c *believer) idle(act func()) {
	c.tags++
	tag := fmt.Sprint("t", c.tags)
	c.send(tag + " IDLE\r\n")
	c.gone, c.opening = true, false
	for {
		line := c.line()
		if strings.HasPrefix(line, "+") {
			break
		}
		c.take(line)
	}
	act()
	c.send("DONE\r\n")
	c.until(tag, "IDLE")
}

// Several clients change two mailboxes, one after the other. At any time each of them, once it has caught up, knows what the
// server has, whether it was told by untagged responses, while it idled, or by QRESYNC.
func TestClientModel(t *testing.T) {
	h := newHouse(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		boxes := []string{fmt.Sprint("a", run), fmt.Sprint("b", run)}
		for _, name := range boxes {
			_, err := h.config.Mailboxes.Create(h.owner, name, "")
			h.must(err)
		}
		by := drawn{t}
		var clients []*believer
		for i := range 3 {
			c := h.believer(h.t, t.Fatalf, i > 0)
			c.alone = true
			defer c.conn.Close()
			clients = append(clients, c)
			c.add(boxes[0], nil)
			c.add(boxes[0], nil)
			c.open(boxes[0])
		}
		one := func() *believer { return clients[by.below(len(clients))] }
		t.Repeat(map[string]func(*rapid.T){
			"act":  func(*rapid.T) { one().act(by, boxes) },
			"act2": func(*rapid.T) { one().act(by, boxes) },
			"act3": func(*rapid.T) { one().act(by, boxes) },
			"know": func(*rapid.T) { one().agrees(h) },
			"idle": func(*rapid.T) {
				i := by.below(len(clients))
				if clients[i].box == "" {
					return
				}
				clients[i].idle(func() { clients[(i+1)%len(clients)].act(by, boxes) })
			},
			"lose": func(*rapid.T) {
				one().lose(h, h.t)
			},
		})
		for _, c := range clients {
			c.agrees(h)
			c.open(boxes[0])
			c.agrees(h)
		}
	})
}

// The same with clients that act at once. When all are done, each knows what the server has.
func TestClientsAtOnce(t *testing.T) {
	const clients, acts = 6, 40
	h := newHouse(t)
	boxes := []string{"INBOX", "Archive"}
	all := make([]*believer, clients)
	var g sync.WaitGroup
	for i := range all {
		all[i] = h.believer(t, t.Errorf, i%3 > 0)
		all[i].add(boxes[0], nil)
		all[i].open(boxes[0])
		by := random{rand.New(rand.NewPCG(1, uint64(i)))}
		g.Go(func() {
			for range acts {
				all[i].act(by, boxes)
				if by.below(8) == 0 {
					all[i].lose(h, t)
				}
			}
		})
	}
	g.Wait()
	for _, c := range all {
		c.agrees(h)
		for range boxes {
			c.open(boxes[0])
			c.agrees(h)
			boxes[0], boxes[1] = boxes[1], boxes[0]
		}
	}
}
