package mailbox

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postroad/internal/store"
)

func notes(words ...string) []Annotation {
	var list []Annotation
	for i := 0; i < len(words); i += 2 {
		list = append(list, Annotation{words[i], []byte(words[i+1])})
	}
	return list
}

// entries reads annotations as words.
func (h house) entries(a *Access, name string, depth int, queries ...string) string {
	h.Helper()
	list, _, err := a.Metadata(name, queries, depth, -1)
	h.must(err)
	var words []string
	for _, n := range list {
		words = append(words, n.Entry+"="+string(n.Value))
	}
	return strings.Join(words, " ")
}

func TestMetadata(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	h.grant("a", "bob@x.test", "lrw")
	h.must(h.as(ann).SetMetadata("a", notes("/PRIVATE/Comment", "mine", "/shared/comment", "ours", "/shared/vendor/v/x", "1",
		"/shared/vendor/v/x/y", "2", "/shared/vendor/vv", "3", "/shared/empty", "")))
	h.must(h.as(bob).SetMetadata(anns+"a", notes("/private/comment", "his")))
	for _, c := range []struct {
		depth   int
		queries string
		want    string
	}{
		{0, "/private/comment", "/private/comment=mine"},
		{0, "/shared/COMMENT /private/comment /shared/comment", "/private/comment=mine /shared/comment=ours"},
		{0, "/shared/empty", "/shared/empty="},
		{0, "/shared/vendor/v", ""},
		{1, "/shared/vendor/v", "/shared/vendor/v/x=1"},
		{-1, "/shared/vendor/v", "/shared/vendor/v/x=1 /shared/vendor/v/x/y=2"},
		{1, "/shared/vendor/v/x", "/shared/vendor/v/x=1 /shared/vendor/v/x/y=2"},
		{1, "/private", "/private/comment=mine"},
		{0, "/shared/none", ""},
	} {
		if got := h.entries(h.as(ann), "a", c.depth, strings.Fields(c.queries)...); got != c.want {
			t.Errorf("depth %d %s gives %s, want %s", c.depth, c.queries, got, c.want)
		}
	}
	if got := h.entries(h.as(bob), anns+"a", -1, "/private", "/shared/comment"); got != "/private/comment=his /shared/comment=ours" {
		t.Errorf("bob sees %s", got)
	}
	h.must(h.as(ann).SetMetadata("a", []Annotation{{"/shared/comment", nil}, {"/shared/never", nil}, {"/private/comment", []byte("new")}}))
	if got := h.entries(h.as(ann), "a", 0, "/shared/comment", "/private/comment"); got != "/private/comment=new" {
		t.Errorf("then %s", got)
	}
	list, longest, err := h.as(ann).Metadata("a", []string{"/shared", "/private"}, -1, 1)
	if err != nil || longest != 3 || len(list) != 4 {
		t.Errorf("at most 1 octet: %v, %d, %v", list, longest, err)
	}
}

func TestEntryNames(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	for _, name := range []string{
		"", "/", "comment", "/other/x", "/privatex/y", "/private/", "/private//x", "/private/*", "/private/a%", "/private/ä", "/private/a b",
		"/private/\x00", "/private/" + strings.Repeat("x", maxEntry), "/private", "/SHARED",
	} {
		if err := h.as(ann).SetMetadata("a", notes("/private/fine", "x", name, "x")); !errors.Is(err, ErrEntry) {
			t.Errorf("set %q: %v", name, err)
		}
		_, _, err := h.as(ann).Metadata("a", []string{name}, 0, -1)
		if top := name == "/private" || name == "/SHARED"; errors.Is(err, ErrEntry) == top {
			t.Errorf("get %q: %v", name, err)
		}
	}
	if got := h.entries(h.as(ann), "a", -1, "/private"); got != "" {
		t.Errorf("half was set: %s", got)
	}
}

func TestServerMetadata(t *testing.T) {
	h := open(t, Options{Admin: func(_ store.Reader, o Owner) bool { return o == carl }})
	h.must(h.SetAdminContact("tel:+49123"))
	h.must(h.SetAdminContact("mailto:root@x.test"))
	if err := h.SetAdminContact(strings.Repeat("x", MaxAnnotation+1)); !errors.Is(err, ErrAnnotationSize) {
		t.Errorf("a long contact: %v", err)
	}
	before := h.st.Stats().Updates
	h.must(h.SetAdminContact("mailto:root@x.test"))
	if after := h.st.Stats().Updates; after != before {
		t.Errorf("the same contact was written %d times", after-before)
	}
	for _, c := range []struct {
		who   Owner
		entry string
		want  error
	}{
		{ann, "/shared/comment", ErrRights},
		{carl, "/shared/comment", nil},
		{carl, "/shared/admin", ErrRights},
		{ann, "/private/vendor/v/x", nil},
	} {
		if err := h.as(c.who).SetMetadata("", notes(c.entry, "v")); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%d sets %s: %v", c.who, c.entry, err)
		}
	}
	if got := h.entries(h.as(ann), "", -1, "/shared", "/private"); got != "/private/vendor/v/x=v /shared/admin=mailto:root@x.test /shared/comment=v" {
		t.Errorf("ann sees %s", got)
	}
	if got := h.entries(h.as(bob), "", -1, "/shared", "/private"); got != "/shared/admin=mailto:root@x.test /shared/comment=v" {
		t.Errorf("bob sees %s", got)
	}
	h.must(h.SetAdminContact(""))
	if got := h.entries(h.as(bob), "", 0, "/shared/admin"); got != "" {
		t.Errorf("bob sees %s", got)
	}
}

func TestAnnotationBounds(t *testing.T) {
	h := open(t, Options{})
	h.box("a")
	a := h.as(ann)
	if err := a.SetMetadata("a", notes("/private/x", string(make([]byte, MaxAnnotation+1)))); !errors.Is(err, ErrAnnotationSize) {
		t.Errorf("a long value: %v", err)
	}
	var many []Annotation
	for i := range maxAnnotations {
		many = append(many, Annotation{fmt.Sprint("/private/", i), []byte("x")})
	}
	h.must(a.SetMetadata("a", many))
	if err := a.SetMetadata("a", append(notes("/shared/x", ""), notes("/private/x", "")...)); !errors.Is(err, ErrAnnotationCount) {
		t.Errorf("one entry more: %v", err)
	}
	if got := h.entries(a, "a", 0, "/shared/x"); got != "" {
		t.Error("half was set")
	}
	h.must(a.SetMetadata("a", notes("/private/5", "other", "/shared/x", "")))
	long := bytes.Repeat([]byte("x"), MaxAnnotation)
	var err error
	n := 0
	for err == nil {
		h.box(fmt.Sprint("b", n))
		err = a.SetMetadata(fmt.Sprint("b", n), []Annotation{{"/shared/x", long}})
		n++
	}
	if !errors.Is(err, ErrAnnotationCount) || n != maxAnnotationOctets/MaxAnnotation {
		t.Errorf("value %d of all the account may have: %v", n, err)
	}
	h.must(h.Remove(t.Context(), ann, "b0"))
	h.must(a.SetMetadata("b1", []Annotation{{"/private/x", long}}))
}

func TestSpecialUseEntry(t *testing.T) {
	h := open(t, Options{})
	_, err := h.Create(ann, "a", Sent)
	h.must(err)
	h.box("b")
	h.grant("a", "bob@x.test", "lrw")
	a := h.as(ann)
	if got := h.entries(a, "a", -1, "/private"); got != `/private/specialuse=\Sent` {
		t.Errorf("a has %s", got)
	}
	if got := h.entries(h.as(bob), anns+"a", -1, "/private"); got != "" {
		t.Errorf("to bob a has %s", got)
	}
	for _, c := range []struct {
		who        *Access
		name, uses string
	}{{a, "b", `\Sent`}, {a, "b", `\All`}, {a, "b", "nonsense"}, {h.as(bob), anns + "a", `\Trash`}} {
		if err := c.who.SetMetadata(c.name, notes("/private/specialuse", c.uses)); !errors.Is(err, ErrRole) {
			t.Errorf("%s %s: %v", c.name, c.uses, err)
		}
	}
	h.must(a.SetMetadata("a", notes("/private/specialuse", `\archive \Sent`)))
	h.must(a.SetMetadata("a", []Annotation{{"/private/specialuse", nil}}))
	h.must(a.SetMetadata("b", notes("/private/specialuse", `\Sent`)))
	if m := h.now(h.box("c").ID); m.Role != "" {
		t.Error(m)
	}
	if m, err := a.Mailbox("b", 0); m.Role != Sent || err != nil {
		t.Errorf("%+v, %v", m, err)
	}
	if got := h.entries(a, "a", -1, "/private"); got != "" {
		t.Errorf("a has %s", got)
	}
}

// Annotations follow a mailbox that is renamed, are copied when INBOX is, and go with the mailbox (RFC 5464, 4.1).
func TestAnnotationsFollow(t *testing.T) {
	h := open(t, Options{})
	h.box("INBOX")
	h.box("a")
	a := h.as(ann)
	set := notes("/private/comment", "mine", "/shared/comment", "ours")
	h.must(a.SetMetadata("a", set))
	h.must(a.SetMetadata("INBOX", set))
	h.must(a.Rename(t.Context(), "a", "b"))
	h.must(a.Rename(t.Context(), "INBOX", "c"))
	for _, name := range []string{"INBOX", "b", "c"} {
		if got := h.entries(a, name, -1, "/private", "/shared"); got != "/private/comment=mine /shared/comment=ours" {
			t.Errorf("%s has %s", name, got)
		}
	}
	h.must(a.Remove(t.Context(), "b"))
	h.box("b")
	if got := h.entries(a, "b", -1, "/private", "/shared"); got != "" {
		t.Errorf("made again it has %s", got)
	}
}
