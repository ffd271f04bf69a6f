package mailbox

import (
	"fmt"
	"slices"

	"postroad/internal/store"
)

func annotationsOf(who Owner, id ID) store.Key {
	return store.NewKey("mx").Uint(uint64(who)).Uint(uint64(id))
}
func annotationKey(who Owner, id ID, entry string) store.Key {
	return annotationsOf(who, id).Text(entry)
}
func annotatorsOf(id ID) store.Key            { return store.NewKey("mo").Uint(uint64(id)) }
func annotatorKey(id ID, who Owner) store.Key { return annotatorsOf(id).Uint(uint64(who)) }
func annotationUseKey(o Owner) store.Key      { return store.NewKey("my").Uint(uint64(o)) }

// note sets one entry, or removes it, and counts it against who pays for it: for a shared entry the mailbox's owner,
// for a private one its account.
func note(tx store.Tx, who, payer Owner, id ID, n Annotation) error {
	key := annotationKey(who, id, n.Entry)
	was := tx.Get(key)
	if n.Value == nil && was == nil {
		return nil
	}
	var d annotationUse
	if was != nil {
		d = annotationUse{-1, -int64(len(was) - 1)}
	}
	if n.Value != nil {
		d.entries, d.octets = d.entries+1, d.octets+int64(len(n.Value))
	}
	if d.entries > 0 {
		if err := roomOn(tx, who, id); err != nil {
			return err
		}
	}
	if err := changeAnnotationUse(tx, payer, d); err != nil {
		return err
	}
	if n.Value == nil {
		tx.Delete(key)
	} else {
		tx.Put(key, append([]byte{recordVersion}, n.Value...)) // never empty, so that it is there
	}
	markAnnotator(tx, who, id)
	return nil
}

// roomOn says ErrAnnotationCount when no more entries fit on a mailbox.
func roomOn(r store.Reader, who Owner, id ID) error {
	n := 0
	for range r.Scan(annotationsOf(who, id), annotationsOf(who, id).End()) {
		if n++; n == maxAnnotations {
			return fmt.Errorf("%w: there are %d on it already", ErrAnnotationCount, n)
		}
	}
	return nil
}

// markAnnotator keeps the table of who has private entries on a mailbox.
func markAnnotator(tx store.Tx, who Owner, id ID) {
	if who == sharedEntries || id == server {
		return
	}
	for range tx.Scan(annotationsOf(who, id), annotationsOf(who, id).End()) {
		tx.Put(annotatorKey(id, who), []byte{recordVersion})
		return
	}
	tx.Delete(annotatorKey(id, who))
}

// annotationUse is what counts against an account.
type annotationUse struct{ entries, octets int64 }

func loadAnnotationUse(r store.Reader, o Owner) (u annotationUse, err error) {
	v := r.Get(annotationUseKey(o))
	if v == nil {
		return u, nil
	}
	d := store.NewDecoder(v)
	version := d.Uint()
	u = annotationUse{d.Int(), d.Int()}
	if d.Err() != nil || version != recordVersion {
		err = fmt.Errorf("annotations of owner %d: %w", o, store.ErrRecord)
	}
	return u, err
}

func (u annotationUse) put(tx store.Tx, o Owner) {
	if u == (annotationUse{}) {
		tx.Delete(annotationUseKey(o))
		return
	}
	var e store.Encoder
	e.Uint(recordVersion)
	e.Int(u.entries)
	e.Int(u.octets)
	tx.Put(annotationUseKey(o), e)
}

// changeAnnotationUse adds d to what counts against an account. ErrAnnotationCount.
func changeAnnotationUse(tx store.Tx, o Owner, d annotationUse) error {
	u, err := loadAnnotationUse(tx, o)
	if err != nil {
		return err
	}
	u = annotationUse{u.entries + d.entries, u.octets + d.octets}
	if d.entries > 0 && u.entries > maxOwnerAnnotations || d.octets > 0 && u.octets > maxAnnotationOctets {
		return fmt.Errorf("%w: the account would have %d of %d octets in %d of %d", ErrAnnotationCount,
			u.octets, maxAnnotationOctets, u.entries, maxOwnerAnnotations)
	}
	u.put(tx, o)
	return nil
}

// dropAnnotations removes an account's entries on a mailbox, or with sharedEntries the shared ones, and takes them off who paid.
func dropAnnotations(tx store.Tx, who, payer Owner, id ID) error {
	var keys [][]byte
	var d annotationUse
	prefix := annotationsOf(who, id)
	for k, v := range tx.Scan(prefix, prefix.End()) {
		keys = append(keys, slices.Clone(k))
		d = annotationUse{d.entries - 1, d.octets - int64(len(v)-1)}
	}
	for _, k := range keys {
		tx.Delete(k)
	}
	tx.Delete(annotatorKey(id, who))
	if d == (annotationUse{}) {
		return nil
	}
	return changeAnnotationUse(tx, payer, d)
}

// dropAnnotations removes the entries of one account on a removed mailbox, and says whether there may be more.
func (b *box) dropAnnotations(tx store.Tx) (more bool, err error) {
	if err := dropAnnotations(tx, sharedEntries, b.Owner, b.ID); err != nil {
		return false, err
	}
	for k := range tx.Scan(annotatorsOf(b.ID), annotatorsOf(b.ID).End()) {
		who := Owner(lastUint(k))
		return true, dropAnnotations(tx, who, who, b.ID)
	}
	return false, nil
}

// dropPrivate removes all private entries of an account; their number is bounded.
func dropPrivate(tx store.Tx, o Owner) error {
	ids := map[ID]bool{}
	prefix := store.NewKey("mx").Uint(uint64(o))
	for k := range tx.Scan(prefix, prefix.End()) {
		id, _ := store.TakeUint(k[len(prefix):])
		ids[ID(id)] = true
	}
	for id := range ids {
		if err := dropAnnotations(tx, o, o, id); err != nil {
			return err
		}
	}
	return nil
}

// copyAnnotations gives another mailbox of the same owner the shared entries and the owner's.
func (b *box) copyAnnotations(tx store.Tx, from ID) error {
	for _, who := range []Owner{sharedEntries, b.Owner} {
		var notes []Annotation
		prefix := annotationsOf(who, from)
		for k, v := range tx.Scan(prefix, prefix.End()) {
			entry, _ := store.TakeText(k[len(prefix):])
			notes = append(notes, Annotation{entry, slices.Clone(v[1:])})
		}
		for _, n := range notes {
			if err := note(tx, who, b.Owner, b.ID, n); err != nil {
				return err
			}
		}
	}
	return nil
}
