package mailbox

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/store"
)

// Bounds of annotations (RFC 5464, 4.1).
const (
	MaxAnnotation = 64 << 10 // octets of a value

	maxEntry            = 255     // octets of an entry's name
	maxAnnotations      = 100     // entries on one mailbox, or on the server, shared or one account's
	maxOwnerAnnotations = 1_000   // entries that count against one account
	maxAnnotationOctets = 1 << 20 // of all values that count against one account
)

// Annotation is an entry and its value; nil is none.
type Annotation struct {
	Entry string
	Value []byte
}

// The first levels of entry names.
const (
	private = "/private"
	public  = "/shared"
)

// shared is the account whose entries are everybody's, and server the mailbox whose entries are the server's.
const (
	sharedEntries Owner = 0
	server        ID    = 0
)

// cleanEntry returns an entry's name as it is kept: in small letters (RFC 5464, 3.2). ErrEntry.
func cleanEntry(name string) (string, error) {
	clean := strings.ToLower(name)
	switch {
	case len(name) > maxEntry:
		return "", fmt.Errorf("%w: it is longer than %d octets", ErrEntry, maxEntry)
	case !within(clean, private) && !within(clean, public):
		return "", fmt.Errorf("%w: %q does not begin with %s or %s", ErrEntry, name, private, public)
	case strings.Contains(clean, "//") || strings.HasSuffix(clean, "/"):
		return "", fmt.Errorf("%w: %q has an empty level", ErrEntry, name)
	case strings.ContainsFunc(clean, unfit):
		return "", fmt.Errorf("%w: %q has a wildcard, or what is not printable ASCII", ErrEntry, name)
	}
	return clean, nil
}

func unfit(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' || r == '%' }

// within reports whether an entry is top or lies below it.
func within(entry, top string) bool {
	rest, ok := strings.CutPrefix(entry, top)
	return ok && (rest == "" || rest[0] == '/')
}

// A query is which entries are asked for.
type query struct {
	entries []string // clean
	depth   int      // levels below them, -1 for all
}

func newQuery(names []string, depth int) (query, error) {
	q := query{depth: depth}
	for _, name := range names {
		entry, err := cleanEntry(name)
		if err != nil {
			return q, err
		}
		q.entries = append(q.entries, entry)
	}
	return q, nil
}

func (q query) wants(entry string) bool {
	return slices.ContainsFunc(q.entries, func(top string) bool {
		return within(entry, top) && (q.depth < 0 || strings.Count(entry[len(top):], "/") <= q.depth)
	})
}

// Metadata returns those of the entries that a mailbox has, or with the name "" the server, and of those below them as
// many levels as depth says, -1 for all. With most not negative, values longer than that are left out, and the length
// of the longest of them is returned too. ErrEntry, ErrNotFound, ErrRights.
func (a *Access) Metadata(name string, entries []string, depth int, most int64) (list []Annotation, longest int64, err error) {
	q, err := newQuery(entries, depth)
	if err != nil {
		return nil, 0, err
	}
	err = a.onAnnotated(name, func(r store.Reader, b *box) error {
		list, longest = nil, 0
		for _, note := range a.annotations(r, b, q) {
			if size := int64(len(note.Value)); most >= 0 && size > most {
				longest = max(longest, size)
				continue
			}
			list = append(list, Annotation{note.Entry, slices.Clone(note.Value)})
		}
		return nil
	})
	slices.SortFunc(list, func(a, b Annotation) int { return cmp.Compare(a.Entry, b.Entry) })
	return list, longest, err
}

// onAnnotated reads the mailbox whose annotations the account may see, or nil for the server.
func (a *Access) onAnnotated(name string, fn func(store.Reader, *box) error) error {
	if name == "" {
		return a.s.st.View(func(r store.Reader) error { return fn(r, nil) })
	}
	return a.view(name, RightLookup, func(r store.Reader, b *box) error {
		if err := mayAnnotate(b, name); err != nil {
			return err
		}
		return fn(r, b)
	})
}

// mayAnnotate is RFC 5464, 3.3: who sees a mailbox and has something to do with its messages.
func mayAnnotate(b *box, name string) error {
	if b.Rights&(RightRead|RightSeen|RightWrite|RightInsert|RightPost) == 0 {
		return fmt.Errorf("%w: the annotations of %q need one of %q", ErrRights, name, "rswip")
	}
	return nil
}

// annotations reads entries, the account's private ones and the shared ones. The values belong to r.
func (a *Access) annotations(r store.Reader, b *box, q query) []Annotation {
	id := server
	var list []Annotation
	if b != nil {
		id = b.ID
		if b.Owner == a.owner && b.Role != "" && q.wants(specialUse) {
			list = append(list, Annotation{specialUse, []byte(b.Role)})
		}
	}
	for _, who := range []Owner{a.owner, sharedEntries} {
		prefix := annotationsOf(who, id)
		for k, v := range r.Scan(prefix, prefix.End()) {
			if entry, _ := store.TakeText(k[len(prefix):]); q.wants(entry) {
				list = append(list, Annotation{entry, v[1:]})
			}
		}
	}
	return list
}

// specialUse is the entry that is a mailbox's role, as its owner set it (RFC 6154, 4).
const specialUse = private + "/specialuse"

// SetMetadata sets entries of a mailbox, or with the name "" of the server, all or none; a nil value removes one. Shared ones
// of a mailbox take the right to write, those of the server are for administrators, and /shared/admin is for none of them.
// ErrEntry, ErrNotFound, ErrRights, ErrAnnotationSize, ErrAnnotationCount, ErrRole.
func (a *Access) SetMetadata(name string, notes []Annotation) error {
	clean, err := cleanAnnotations(notes)
	if err != nil {
		return err
	}
	if name == "" {
		return a.s.st.Update(func(tx store.Tx) error {
			if err := a.permitServer(tx, clean); err != nil {
				return err
			}
			return a.annotate(tx, nil, clean)
		})
	}
	return a.update(name, RightLookup, func(tx store.Tx, b *box) error {
		if err := mayAnnotate(b, name); err != nil {
			return err
		}
		if slices.ContainsFunc(clean, Annotation.shared) && !b.Rights.Has(RightWrite) {
			return fmt.Errorf("%w: the shared annotations of %q need %q", ErrRights, name, "w")
		}
		return a.annotate(tx, b, clean)
	})
}

func (n Annotation) shared() bool { return within(n.Entry, public) }

func cleanAnnotations(notes []Annotation) ([]Annotation, error) {
	clean := make([]Annotation, len(notes))
	for i, n := range notes {
		entry, err := cleanEntry(n.Entry)
		if err != nil {
			return nil, err
		}
		if entry == private || entry == public {
			return nil, fmt.Errorf("%w: %q has one level only", ErrEntry, n.Entry)
		}
		if len(n.Value) > MaxAnnotation {
			return nil, fmt.Errorf("%w: %s has %d octets, and the most is %d", ErrAnnotationSize, entry, len(n.Value), MaxAnnotation)
		}
		clean[i] = Annotation{entry, n.Value}
	}
	return clean, nil
}

// permitServer checks who may set entries of the server.
func (a *Access) permitServer(r store.Reader, notes []Annotation) error {
	for _, n := range notes {
		switch {
		case n.Entry == ServerAdmin:
			return fmt.Errorf("%w: %s is set where the server runs", ErrRights, n.Entry)
		case n.shared() && !a.s.admin(r, a.owner):
			return fmt.Errorf("%w: %s is set by administrators", ErrRights, n.Entry)
		}
	}
	return nil
}

// annotate sets clean entries on b, or on the server, and announces them.
func (a *Access) annotate(tx store.Tx, b *box, notes []Annotation) error {
	for _, who := range []Owner{a.owner, sharedEntries} {
		var entries []string
		for _, n := range notes {
			if n.shared() != (who == sharedEntries) {
				continue
			}
			if err := a.s.annotateOne(tx, who, b, n); err != nil {
				return err
			}
			entries = append(entries, n.Entry)
		}
		a.s.announceEntries(tx, who, b, entries)
	}
	if b == nil || len(notes) == 0 {
		return nil
	}
	e := a.s.edit(tx, b)
	e.modseq() // which annotations raise, too (RFC 7162, 3.2)
	return e.save()
}

func (s *Service) announceEntries(tx store.Tx, who Owner, b *box, entries []string) {
	e := Event{What: Annotated, Private: who, Entries: entries}
	if b != nil {
		e.Owner, e.Mailbox, e.Name = b.Owner, b.Mailbox, b.Name
	}
	if len(entries) > 0 {
		s.announce(tx, e)
	}
}

func (s *Service) annotateOne(tx store.Tx, who Owner, b *box, n Annotation) error {
	if b == nil {
		return note(tx, who, who, server, n)
	}
	if n.Entry == specialUse {
		return s.setRole(tx, who, b, n.Value)
	}
	payer := who
	if who == sharedEntries {
		payer = b.Owner
	}
	return note(tx, who, payer, b.ID, n)
}

// setRole gives a mailbox other special uses.
func (s *Service) setRole(tx store.Tx, who Owner, b *box, value []byte) error {
	if who != b.Owner {
		return fmt.Errorf("%w: %q belongs to another account", ErrRole, b.Name)
	}
	role, err := ParseRole(strings.Fields(string(value)))
	if err != nil {
		return err
	}
	if err := vacant(tx, b.Owner, role, b.ID); err != nil {
		return err
	}
	b.Role = role
	b.put(tx)
	return nil
}

// ServerAdmin is the server's entry that tells how to reach its administrator, as a URI; no client may set it.
const ServerAdmin = public + "/admin"

// SetAdminContact sets that entry, or with an empty URI removes it, for the server's own administration. Where nothing
// changes nothing is written. ErrAnnotationSize.
func (s *Service) SetAdminContact(uri string) error {
	n := Annotation{Entry: ServerAdmin}
	if uri != "" {
		n.Value = []byte(uri)
	}
	if _, err := cleanAnnotations([]Annotation{n}); err != nil {
		return err
	}
	same := false
	err := s.st.View(func(r store.Reader) error {
		was := r.Get(annotationKey(sharedEntries, server, n.Entry))
		same = was == nil && n.Value == nil || was != nil && n.Value != nil && string(was[1:]) == uri
		return nil
	})
	if err != nil || same {
		return err
	}
	return s.st.Update(func(tx store.Tx) error {
		s.announceEntries(tx, sharedEntries, nil, []string{n.Entry})
		return note(tx, sharedEntries, sharedEntries, server, n)
	})
}
