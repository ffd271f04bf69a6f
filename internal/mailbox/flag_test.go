package mailbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestStoreFlags(t *testing.T) {
	for _, c := range []struct {
		what  string
		had   string
		op    FlagOp
		flags string
		want  string
	}{
		{"add", `\Seen`, AddFlags, `\Deleted`, `\Deleted \Seen`},
		{"add what is there", `\Seen`, AddFlags, `\seen`, `\Seen`},
		{"add none", `\Seen work`, AddFlags, ``, `\Seen work`},
		{"remove", `\Seen \Flagged work`, RemoveFlags, `\SEEN WORK`, `\Flagged`},
		{"remove what is not there", `\Seen`, RemoveFlags, `\Draft other`, `\Seen`},
		{"set", `\Seen work`, SetFlags, `\Answered home`, `\Answered home`},
		{"clear", `\Seen work`, SetFlags, ``, ``},
		{"keywords keep the case they came in", `$Junk`, SetFlags, `$jUNK $junk`, `$Junk`},
		{"flags that are not kept", ``, SetFlags, `\Recent \Strange \Seen`, `\Seen`},
		{"all", ``, SetFlags, `\Seen \Answered \Flagged \Deleted \Draft a`, `\Answered \Deleted \Draft \Flagged \Seen a`},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := open(t, Options{})
			id := h.box("a").ID
			h.append(id, small, strings.Fields(c.had)...)
			done, err := h.Store(t.Context(), id, set(1), c.op, strings.Fields(c.flags), nil)
			h.must(err)
			told := h.some(id, done.Done)
			if changed := c.want != sortedFlags(strings.Fields(c.had)); done.Changed.Contains(1) != changed {
				t.Errorf("changed: %t, want %t", done.Changed.Contains(1), changed)
			}
			if got := strings.Join(told[0].Flags, " "); got != c.want {
				t.Errorf("told %s, want %s", got, c.want)
			}
			if got := strings.Join(h.all(id)[0].Flags, " "); got != c.want {
				t.Errorf("kept %s, want %s", got, c.want)
			}
		})
	}
}

func TestFlagsHas(t *testing.T) {
	fl := Flags{`\Seen`, "Work"}
	if !fl.Has(`\sEEN`) || !fl.Has("work") || fl.Has(`\Deleted`) {
		t.Error("Has looks at flags without regard to case")
	}
}

// Messages share their Flags; appending to one's leaves the others' alone.
func TestFlagsAreClipped(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.fill(id, 2, `\Seen`)
	list := h.all(id)
	if one, other := append(list[0].Flags, "a"), append(list[1].Flags, "b"); one[1] != "a" || other[1] != "b" {
		t.Errorf("got %v and %v", one, other)
	}
}

func TestImpossibleKeyword(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, small)
	for _, f := range []string{"", "a b", "a(", "a]", `a\b`, "ä", "a\x00", "a\r\n", strings.Repeat("x", maxKeyword+1)} {
		if _, err := h.Store(t.Context(), id, set(1), AddFlags, []string{f}, nil); !errors.Is(err, ErrFlag) {
			t.Errorf("%q gives %v", f, err)
		}
	}
}

func TestKeywordLimit(t *testing.T) {
	h := open(t, Options{Keywords: 3})
	id := h.box("a").ID
	h.append(id, small, "a", "b", "c")
	if _, err := h.Store(t.Context(), id, set(1), AddFlags, []string{"d"}, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("a fourth keyword gives %v", err)
	}
	h.mark(id, RemoveFlags, "unknown", 1)
	h.append(id, small, `\Seen`, "A", "d")
	if got := h.show(id); got != `1abc 2\Seena` {
		t.Errorf("a message that comes with too many keywords: %s", got)
	}
	words, err := h.Keywords(id)
	h.must(err)
	equal(t, "keywords", words, []string{"a", "b", "c"})
}

func TestManyKeywords(t *testing.T) {
	h := open(t, Options{})
	id, other := h.box("a").ID, h.box("b").ID
	h.append(id, small)
	var want []string
	for i := range maxKeywords {
		want = append(want, fmt.Sprintf("k%03d", i))
	}
	_, err := h.Store(t.Context(), id, set(1), SetFlags, want, nil)
	h.must(err)
	equal(t, "flags", h.all(id)[0].Flags, want)
	h.append(other, small, "K499", "K000")
	_, _, err = h.Copy(context.Background(), id, nil, other)
	h.must(err)
	copied := slices.Clone(want)
	copied[0], copied[499] = "K000", "K499"
	slices.Sort(copied)
	equal(t, "flags of the copy", h.all(other)[1].Flags, copied)
}
