package mailbox

import (
	"errors"
	"testing"

	"postroad/internal/store"
)

func (h house) newMessages(texts ...string) []NewMessage {
	h.Helper()
	var list []NewMessage
	for _, text := range texts {
		d, structure := h.draft(text)
		list = append(list, NewMessage{Draft: d, Structure: structure, Flags: []string{text[:1]}})
	}
	return list
}

func TestAppendAllIsAllOrNone(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	placed, err := h.AppendAll(id, h.newMessages("x: 1\r\n\r\n", "y: 2\r\n\r\n"), nil, nil)
	h.must(err)
	if len(placed) != 2 || placed[0].UID != 1 || placed[1].UID != 2 || h.show(id) != "1x 2y" {
		t.Errorf("placed %+v, has %s", placed, h.show(id))
	}
	refused := errors.New("refused")
	refuse := func(store.Tx, []Placed) error { return refused }
	bad := h.newMessages("x: 1\r\n\r\n", "y: 2\r\n\r\n")
	bad[1].Flags = []string{"no flag"}
	for what, got := range map[string]error{
		"a bad flag":       second(h.AppendAll(id, bad, nil, nil)),
		"also":             second(h.AppendAll(id, h.newMessages("x: 1\r\n\r\n"), nil, refuse)),
		"replaced is gone": second(h.AppendAll(id, h.newMessages("x: 1\r\n\r\n"), &Replaced{id, 9}, nil)),
		"no mailbox":       second(h.AppendAll(id+1, h.newMessages("x: 1\r\n\r\n"), nil, nil)),
	} {
		if got == nil || h.show(id) != "1x 2y" || h.now(id).UIDNext != 3 {
			t.Errorf("%s: %v, and the mailbox has %s", what, got, h.show(id))
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReplace(t *testing.T) {
	h := open(t, Options{})
	a, b := h.box("a").ID, h.box("b").ID
	h.append(a, small)
	h.append(a, small)
	v := h.view(a)
	_, err := h.AppendAll(a, h.newMessages("x: 1\r\n\r\n"), &Replaced{a, 1}, nil)
	h.must(err)
	if h.show(a) != "2 3x" {
		t.Errorf("has %s", h.show(a))
	}
	c := h.sync(v, true)
	equal(t, "expunged", c.Expunged.ToArray(), []UID{1})
	equal(t, "new", c.New.ToArray(), []UID{3})
	_, err = h.AppendAll(b, h.newMessages("y: 1\r\n\r\n"), &Replaced{a, 2}, nil)
	h.must(err)
	if h.show(a) != "3x" || h.show(b) != "1y" {
		t.Errorf("have %s and %s", h.show(a), h.show(b))
	}
}

// A message that takes the place of another needs room only for the difference.
func TestReplaceWithinQuota(t *testing.T) {
	h := open(t, Options{Quota: func(store.Reader, Owner) Quota { return Quota{Octets: 20} }})
	id := h.box("a").ID
	const ten = "x: 4567\r\n\r\n"
	_, err := h.AppendAll(id, h.newMessages(ten), nil, nil)
	h.must(err)
	if _, err := h.AppendAll(id, h.newMessages(ten), nil, nil); !errors.Is(err, ErrOverQuota) {
		t.Errorf("a second message: %v", err)
	}
	_, err = h.AppendAll(id, h.newMessages("y: 45678\r\n\r\n"), &Replaced{id, 1}, nil)
	h.must(err)
	if h.show(id) != "2y" {
		t.Errorf("has %s", h.show(id))
	}
}
