package mailbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"pgregory.net/rapid"

	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// A world is a service under random work, and what must hold of it: several readers that
// follow by Sync alone know what the store has, and the numbers never lie. An independent
// model says which messages with which flags there must be.
type world struct {
	t   *rapid.T
	dir string
	st  *store.Store
	s   *Service

	boxes    map[string]*modelBox
	validity uint32 // the highest ever
	readers  []*reader
	recent   map[ID]map[UID]*reader // to whom messages are recent; &before for those from before a restart
	before   reader
}

// A modelBox is what a mailbox must be.
type modelBox struct {
	id       ID
	next     UID
	modseq   uint64
	messages map[UID]string // flags
	ends     map[UID]uint64 // messages that were expunged, and a modseq before that
}

// A reader has seen nothing but Sync.
type reader struct {
	view  *watcher
	id    ID
	flags map[UID]string
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatalf("%+v", err)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, dir: storetest.MemoryDir(t), boxes: map[string]*modelBox{}, recent: map[ID]map[UID]*reader{}}
		w.open()
		defer func() { _ = w.st.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"":        w.holds,
			"create":  w.create,
			"append":  w.append,
			"append2": w.append,
			"several": w.several,
			"deliver": w.deliver,
			"flags":   w.flags,
			"flags2":  w.flags,
			"expunge": w.expunge,
			"copy":    w.copy,
			"move":    w.move,
			"remove":  w.remove,
			"rename":  w.rename,
			"read":    w.read,
			"read2":   w.read,
			"sync":    w.sync,
			"sync2":   w.sync,
			"sync3":   w.sync,
			"leave":   w.leave,
			"sweep":   func(t *rapid.T) { w.must(w.s.Sweep(t.Context())) },
			"reopen":  w.reopen,
		})
		for _, r := range w.readers {
			w.follow(r, true)
			r.view.Close()
		}
		w.sound()
	})
}

func (w *world) open() {
	st, err := store.Open(w.dir, store.Options{Reserve: 1})
	w.must(err)
	w.st, w.s = st, New(st, Options{})
}

func (w *world) sound() {
	problems, err := w.s.Check(context.Background())
	w.must(err)
	for _, p := range problems {
		w.t.Errorf("check: %s: %s", p.What, p.Text)
	}
	result, err := w.st.Check(context.Background(), []store.References{w.s.References}, nil)
	w.must(err)
	for _, p := range result.Problems {
		w.t.Errorf("check: %s: %s", p.What, p.Text)
	}
}

// holds compares the store with the model after each action.
func (w *world) holds(*rapid.T) {
	list, err := w.s.List(owner)
	w.must(err)
	if want := slices.Sorted(maps.Keys(w.boxes)); !slices.Equal(slices.Sorted(slices.Values(names(list))), want) {
		w.t.Fatalf("mailboxes %v, want %v", names(list), want)
	}
	for _, m := range list {
		w.holdsOf(m, w.boxes[m.Name])
	}
}

func (w *world) holdsOf(m Mailbox, b *modelBox) {
	got := map[UID]string{}
	var highest uint64
	for msg, err := range w.s.Messages(m.ID, nil) {
		w.must(err)
		got[msg.UID] = strings.Join(msg.Flags, " ")
		highest = max(highest, msg.ModSeq)
	}
	if m.ID != b.id || m.UIDNext != b.next || !maps.Equal(got, b.messages) {
		w.t.Fatalf("%s is %d, UIDNEXT %d, %v, want %d, %d, %v", m.Name, m.ID, m.UIDNext, got, b.id, b.next, b.messages)
	}
	if m.ModSeq < b.modseq || m.ModSeq < highest {
		w.t.Fatalf("%s has modseq %d after %d, a message has %d", m.Name, m.ModSeq, b.modseq, highest)
	}
	b.modseq = m.ModSeq
	gone, err := w.s.Vanished(m.ID, 0, nil)
	w.must(err)
	want := roaring.New()
	want.AddRange(1, uint64(b.next))
	for uid := range b.messages {
		want.Remove(uid)
	}
	if !gone.Equals(want) {
		w.t.Fatalf("%s remembers %v, want %v", m.Name, gone, want)
	}
	w.history(m, b)
	w.sets(m, b)
}

// history asks what was expunged since some modseq: all that was, and none that is there.
func (w *world) history(m Mailbox, b *modelBox) {
	for _, since := range b.ends {
		gone, err := w.s.Vanished(m.ID, since, nil)
		w.must(err)
		for uid, before := range b.ends {
			if before >= since && !gone.Contains(uid) {
				w.t.Fatalf("%s has forgotten that %d was expunged after %d: %v", m.Name, uid, since, gone)
			}
		}
		return // one of them, whichever
	}
}

// sets holds the sets of flags against the model.
func (w *world) sets(m Mailbox, b *modelBox) {
	for _, flag := range []string{`\Seen`, `\Deleted`} {
		want := roaring.New()
		for uid, flags := range b.messages {
			if strings.Contains(flags, flag) {
				want.Add(uid)
			}
		}
		if got, err := w.s.Set(m.ID, flag); err != nil || !got.Equals(want) {
			w.t.Fatalf("%s has %s on %v, %v, want %v", m.Name, flag, got, err, want)
		}
	}
	first := UID(0)
	for uid, flags := range b.messages {
		if !strings.Contains(flags, `\Seen`) && (first == 0 || uid < first) {
			first = uid
		}
	}
	if got, err := w.s.FirstUnseen(m.ID); err != nil || got != first {
		w.t.Fatalf("%s has %d as the first that is unseen, %v, want %d", m.Name, got, err, first)
	}
}

// expunged takes a message out of the model.
func (b *modelBox) expunged(uid UID) {
	delete(b.messages, uid)
	b.ends[uid] = b.modseq
}

// changed is called where the model's mailbox has changed: the modseq must rise.
func (w *world) changed(b *modelBox) {
	m, err := w.s.ByID(b.id)
	w.must(err)
	if m.ModSeq <= b.modseq {
		w.t.Fatalf("%s has changed and has modseq %d after %d", m.Name, m.ModSeq, b.modseq)
	}
	b.modseq = m.ModSeq
}

var modelNames = []string{"INBOX", "a", "a/b", "c"}

func (w *world) create(t *rapid.T) {
	w.add(rapid.SampledFrom(modelNames).Draw(t, "name"))
}

func (w *world) add(name string) {
	for _, parent := range append(above(name), name) {
		if w.boxes[parent] != nil {
			continue
		}
		m, err := w.s.Create(owner, parent, "")
		w.must(err)
		w.made(m)
	}
}

func (w *world) made(m Mailbox) {
	if m.UIDValidity <= w.validity {
		w.t.Fatalf("%s has UIDVALIDITY %d, and %d was before", m.Name, m.UIDValidity, w.validity)
	}
	w.validity = m.UIDValidity
	w.boxes[m.Name] = &modelBox{id: m.ID, next: 1, modseq: m.ModSeq, messages: map[UID]string{}, ends: map[UID]uint64{}}
}

// box draws a mailbox and skips the action when there is none.
func (w *world) box(t *rapid.T) *modelBox {
	if len(w.boxes) == 0 {
		t.Skip("no mailbox")
	}
	return w.boxes[rapid.SampledFrom(slices.Sorted(maps.Keys(w.boxes))).Draw(t, "mailbox")]
}

var modelFlags = []string{`\Deleted`, `\Seen`, "a", "b"}

func drawFlags(t *rapid.T) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(modelFlags), 0, 3, rapid.ID[string]).Draw(t, "flags")
}

func drawUIDs(t *rapid.T, b *modelBox) *roaring.Bitmap {
	if rapid.Bool().Draw(t, "all") {
		return nil
	}
	return roaring.BitmapOf(rapid.SliceOfN(rapid.Uint32Range(1, b.next+1), 0, 4).Draw(t, "uids")...)
}

// among returns the messages of b that are in uids, in order.
func (b *modelBox) among(uids *roaring.Bitmap) []UID {
	var list []UID
	for uid := range b.messages {
		if uids == nil || uids.Contains(uid) {
			list = append(list, uid)
		}
	}
	slices.Sort(list)
	return list
}

func sortedFlags(flags []string) string {
	return strings.Join(slices.Sorted(slices.Values(flags)), " ")
}

func (b *modelBox) put(flags string) {
	b.messages[b.next] = flags
	b.next++
}

func (w *world) draft() (*store.Draft, *mime.Structure) {
	structure, err := mime.Scan(strings.NewReader(small))
	w.must(err)
	d := w.st.NewDraft()
	_, err = d.Write([]byte(small))
	w.must(err)
	return d, structure
}

func (w *world) append(t *rapid.T) {
	b, flags := w.box(t), drawFlags(t)
	d, structure := w.draft()
	placed, err := w.s.Append(b.id, d, structure, time.Unix(1, 0), flags, nil)
	w.must(err)
	if placed.UID != b.next {
		t.Fatalf("UID %d, want %d", placed.UID, b.next)
	}
	b.put(sortedFlags(flags))
	w.changed(b)
}

// several adds messages, perhaps in the place of another.
func (w *world) several(t *rapid.T) {
	b, other := w.box(t), w.box(t)
	var list []NewMessage
	for range rapid.IntRange(1, 3).Draw(t, "messages") {
		d, structure := w.draft()
		list = append(list, NewMessage{Draft: d, Structure: structure, Flags: drawFlags(t)})
	}
	var replaces *Replaced
	if among := other.among(nil); len(among) > 0 && rapid.Bool().Draw(t, "replaces") {
		replaces = &Replaced{other.id, rapid.SampledFrom(among).Draw(t, "replaced")}
	}
	placed, err := w.s.AppendAll(b.id, list, replaces, nil)
	w.must(err)
	if replaces != nil {
		other.expunged(replaces.UID)
		w.changed(other)
	}
	for i := range list {
		if placed[i].UID != b.next {
			t.Fatalf("UID %d, want %d", placed[i].UID, b.next)
		}
		b.put(sortedFlags(list[i].Flags))
	}
	if replaces == nil || other != b {
		w.changed(b)
	}
}

// deliver adds one body to two mailboxes, and fails sometimes, which leaves no trace.
func (w *world) deliver(t *rapid.T) {
	b := w.box(t)
	fails := rapid.Bool().Draw(t, "fails")
	d, structure := w.draft()
	octets, _ := structure.AppendBinary(nil)
	a := Arrival{Body: d.ID(), Size: d.Size(), Structure: octets}
	m, err := w.s.ByID(b.id)
	w.must(err)
	failure := errors.New("failure")
	err = w.st.Update(func(tx store.Tx) error {
		for _, name := range []string{m.Name, inbox} {
			if _, err := w.s.Add(tx, owner, name, a); err != nil {
				return err
			}
		}
		if fails {
			return failure
		}
		return nil
	}, d)
	if fails {
		if !errors.Is(err, failure) {
			t.Fatal(err)
		}
		return
	}
	w.must(err)
	if w.boxes[inbox] == nil {
		m, err := w.s.Get(owner, inbox)
		w.must(err)
		m.ModSeq = 1
		w.made(m)
	}
	b.put("")
	w.boxes[inbox].put("")
	w.changed(b)
}

func (w *world) flags(t *rapid.T) {
	b := w.box(t)
	uids, op, flags := drawUIDs(t, b), FlagOp(rapid.IntRange(0, 2).Draw(t, "op")), drawFlags(t)
	done, err := w.s.Store(t.Context(), b.id, uids, op, flags, nil)
	w.must(err)
	among := b.among(uids)
	if !slices.Equal(done.Done.ToArray(), among) {
		t.Fatalf("store told %v of %v", done.Done, among)
	}
	any := false
	for _, uid := range among {
		is := strings.Fields(b.messages[uid])
		isSet := func(f string) bool { return slices.Contains(flags, f) }
		switch op {
		case SetFlags:
			is = flags
		case RemoveFlags:
			is = slices.DeleteFunc(is, isSet)
		case AddFlags:
			is = append(slices.DeleteFunc(is, isSet), flags...)
		}
		changed := b.messages[uid] != sortedFlags(is)
		if done.Changed.Contains(uid) != changed {
			t.Fatalf("store told that %v changed, and of %d that is %t", done.Changed, uid, changed)
		}
		any = any || changed
		b.messages[uid] = sortedFlags(is)
	}
	if any {
		w.changed(b)
	}
}

func (w *world) expunge(t *rapid.T) {
	b := w.box(t)
	uids := drawUIDs(t, b)
	gone, err := w.s.Expunge(t.Context(), b.id, uids)
	w.must(err)
	var want []UID
	for _, uid := range b.among(uids) {
		if strings.Contains(b.messages[uid], `\Deleted`) {
			want = append(want, uid)
			b.expunged(uid)
		}
	}
	if !slices.Equal(gone.ToArray(), want) {
		t.Fatalf("expunged %v, want %v", gone, want)
	}
	if len(want) > 0 {
		w.changed(b)
	}
}

func (w *world) copy(t *rapid.T) { w.transfer(t, w.s.Copy, false) }
func (w *world) move(t *rapid.T) { w.transfer(t, w.s.Move, true) }

func (w *world) transfer(t *rapid.T, do func(context.Context, ID, *roaring.Bitmap, ID) (Mailbox, []Pair, error), move bool) {
	from, to := w.box(t), w.box(t)
	uids := drawUIDs(t, from)
	among := from.among(uids)
	_, pairs, err := do(t.Context(), from.id, uids, to.id)
	w.must(err)
	if len(pairs) != len(among) {
		t.Fatalf("pairs %v of %v", pairs, among)
	}
	for i, uid := range among {
		if pairs[i] != (Pair{uid, to.next}) {
			t.Fatalf("pair %v, want %d to %d", pairs[i], uid, to.next)
		}
		to.put(from.messages[uid])
		if move {
			from.expunged(uid)
		}
	}
	if len(among) > 0 {
		w.changed(to)
	}
}

func (w *world) remove(t *rapid.T) {
	name := rapid.SampledFrom(modelNames[1:]).Draw(t, "name")
	err := w.s.Remove(t.Context(), owner, name)
	if w.boxes[name] == nil {
		if !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		return
	}
	w.must(err)
	delete(w.boxes, name)
}

// rename swaps a name with a free one.
func (w *world) rename(t *rapid.T) {
	from, to := "c", "d"
	if w.boxes[from] == nil {
		from, to = to, from
	}
	err := w.s.Rename(t.Context(), owner, from, to)
	switch {
	case w.boxes[from] == nil && errors.Is(err, ErrNotFound):
	case w.boxes[to] != nil && errors.Is(err, ErrExists):
	default:
		w.must(err)
		w.boxes[to] = w.boxes[from]
		delete(w.boxes, from)
	}
}

// read opens a view.
func (w *world) read(t *rapid.T) {
	b := w.box(t)
	if len(w.readers) == 6 {
		t.Skip("enough readers")
	}
	v, err := watch(w.s, b.id, true)
	w.must(err)
	r := &reader{view: v, id: b.id, flags: map[UID]string{}}
	for m, err := range w.s.Messages(b.id, v.UIDs()) {
		w.must(err)
		r.flags[m.UID] = strings.Join(m.Flags, " ")
	}
	w.readers = append(w.readers, r)
	w.claims(r)
}

// claims looks that each message is recent to one reader, and to no other.
func (w *world) claims(r *reader) {
	claimed := w.recent[r.id]
	if claimed == nil {
		claimed = map[UID]*reader{}
		w.recent[r.id] = claimed
	}
	for _, uid := range r.view.Recent().ToArray() {
		if who := claimed[uid]; who != nil && who != &w.before && who != r {
			w.t.Fatalf("%d is recent to two readers", uid)
		}
		claimed[uid] = r
	}
	for uid := range r.flags {
		if claimed[uid] == nil {
			w.t.Fatalf("%d is recent to nobody, and a reader knows it", uid)
		}
	}
}

func (w *world) reader(t *rapid.T) int {
	if len(w.readers) == 0 {
		t.Skip("no reader")
	}
	return rapid.IntRange(0, len(w.readers)-1).Draw(t, "reader")
}

func (w *world) leave(t *rapid.T) {
	i := w.reader(t)
	w.readers[i].view.Close()
	w.readers = slices.Delete(w.readers, i, i+1)
}

func (w *world) sync(t *rapid.T) {
	w.follow(w.readers[w.reader(t)], rapid.Bool().Draw(t, "expunge"))
}

// follow syncs a reader, which then must know what the store has.
func (w *world) follow(r *reader, expunge bool) {
	woken := waiting(r.view)
	before := r.view.ModSeq()
	c, err := r.view.Sync(expunge)
	w.must(err)
	var b *modelBox
	for _, box := range w.boxes {
		if box.id == r.id {
			b = box
		}
	}
	if c.Removed != (b == nil) {
		w.t.Fatalf("removed %t, mailbox %v", c.Removed, b)
	}
	if b == nil {
		return
	}
	if !c.empty() && !woken && c.Expunged.IsEmpty() {
		w.t.Fatalf("nobody was woken for %+v", c)
	}
	if r.view.ModSeq() != b.modseq || r.view.ModSeq() < before {
		w.t.Fatalf("followed to %d after %d, of %d", r.view.ModSeq(), before, b.modseq)
	}
	w.take(r, c)
	w.claims(r)
	for uid := range r.flags {
		if b.messages[uid] == "" && !expunge && !contains(b.messages, uid) {
			continue // expunged, and held back
		}
		if !contains(b.messages, uid) || r.flags[uid] != b.messages[uid] {
			w.t.Fatalf("the reader knows %d as %q; the mailbox is %v", uid, r.flags[uid], b.messages)
		}
	}
	for uid := range b.messages {
		if !contains(r.flags, uid) {
			w.t.Fatalf("the reader does not know %d", uid)
		}
	}
}

func contains(m map[UID]string, uid UID) bool { _, ok := m[uid]; return ok }

// take does what a client does with what it is told.
func (w *world) take(r *reader, c Changes) {
	last := UID(0)
	for uid := range r.flags {
		last = max(last, uid)
	}
	for _, uid := range c.Expunged.ToArray() {
		if !contains(r.flags, uid) {
			w.t.Fatalf("told that %d is expunged, which it does not know", uid)
		}
		delete(r.flags, uid)
	}
	for m, err := range w.s.Messages(r.id, c.Flags) {
		w.must(err)
		if !contains(r.flags, m.UID) {
			w.t.Fatalf("told flags of %d, which it does not know", m.UID)
		}
		r.flags[m.UID] = strings.Join(m.Flags, " ")
	}
	for m, err := range w.s.Messages(r.id, c.New) {
		w.must(err)
		if m.UID <= last {
			w.t.Fatalf("told of new %d after %d", m.UID, last)
		}
		r.flags[m.UID] = strings.Join(m.Flags, " ")
	}
	if got := r.view.UIDs().ToArray(); !slices.Equal(got, slices.Sorted(maps.Keys(r.flags))) {
		w.t.Fatalf("the view knows %v, the reader %v", got, r.flags)
	}
}

// reopen ends the process, so to speak. Readers find the same messages in new views.
func (w *world) reopen(t *rapid.T) {
	w.must(w.st.Close())
	w.open()
	for _, r := range w.readers {
		r.view.Close()
	}
	w.readers = nil
	for _, b := range w.boxes {
		w.recent[b.id] = map[UID]*reader{}
		for uid := range b.messages {
			w.recent[b.id][uid] = &w.before
		}
	}
	w.sound()
}

// Many work on few mailboxes at once, and readers follow. At the end all agrees. Run with -race.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 6, 25
	h := open(t, Options{})
	ids := []ID{h.box("INBOX").ID, h.box("b").ID}
	h.fill(ids[0], 50)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 100)
	var working, reading sync.WaitGroup
	var views []*watcher
	for i := range 6 {
		v := h.view(ids[i%2])
		views = append(views, v)
		reading.Go(func() { errs <- followAll(ctx, v, i%3 > 0) })
	}
	for i := range workers {
		d, structure := h.draft(small)
		octets, _ := structure.AppendBinary(nil)
		a := Arrival{Body: d.ID(), Size: d.Size(), Structure: octets}
		h.must(h.st.Update(func(tx store.Tx) error { _, err := h.Add(tx, owner, inbox, a); return err }, d))
		working.Go(func() {
			for n := range rounds {
				if err := h.work(ctx, ids, i, n, a); err != nil {
					errs <- err
				}
			}
		})
	}
	working.Wait()
	cancel()
	reading.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	for i, v := range views {
		h.sync(v, true)
		var want []UID
		for _, m := range h.all(ids[i%2]) {
			want = append(want, m.UID)
		}
		equal(t, fmt.Sprint("view ", i), v.UIDs().ToArray(), want)
	}
}

// work does one of what people do.
func (h house) work(ctx context.Context, ids []ID, worker, n int, a Arrival) (err error) {
	id, other := ids[n%2], ids[1-n%2]
	switch (worker + n) % 6 {
	case 0, 1:
		err = h.st.Update(func(tx store.Tx) error { _, err := h.Add(tx, owner, inbox, a); return err })
		if errors.Is(err, store.ErrNoBody) {
			err = nil // all that had the body are expunged
		}
	case 2:
		_, err = h.Store(ctx, id, set(UID(n), UID(n+worker)), FlagOp(n%3), []string{`\Deleted`, "k"}, nil)
	case 3:
		_, err = h.Expunge(ctx, id, nil)
	case 4:
		_, _, err = h.Copy(ctx, id, set(UID(n), UID(2*n)), other)
	case 5:
		_, _, err = h.Move(ctx, id, set(UID(n+worker)), other)
	}
	return err
}

// followAll follows a mailbox and holds each Sync against what the view said before.
func followAll(ctx context.Context, v *watcher, expunge bool) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.wakes:
		}
		before, modseq := v.UIDs(), v.ModSeq()
		c, err := v.Sync(expunge)
		if err != nil {
			return err
		}
		want := before.Clone()
		for _, uid := range c.Expunged.ToArray() {
			if !want.CheckedRemove(uid) {
				return fmt.Errorf("expunged %d was not known", uid)
			}
		}
		for _, uid := range c.New.ToArray() {
			if !want.IsEmpty() && uid <= want.Maximum() {
				return fmt.Errorf("new %d is not the last", uid)
			}
			want.Add(uid)
		}
		if !want.Equals(v.UIDs()) || v.ModSeq() < modseq {
			return fmt.Errorf("told %+v, knew %v, knows %v", c, before, v.UIDs())
		}
	}
}
