package mailbox

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanName(t *testing.T) {
	deep := strings.Repeat("a/", maxLevels-1) + "a"
	long := strings.Repeat("x", maxLevel)
	for _, c := range []struct{ what, name, want string }{
		{"as it is", "Work", "Work"},
		{"levels", "Work/2026/März", "Work/2026/März"},
		{"composed", "Ma\u0308rz", "März"},
		{"inbox", "inBox", "INBOX"},
		{"below inbox", "inbox/Lists/inbox", "INBOX/Lists/inbox"},
		{"inbox is no prefix of a level", "inboxes", "inboxes"},
		{"inbox elsewhere is a name", "Old/Inbox", "Old/Inbox"},
		{"space and quotes", ` a "b" `, ` a "b" `},
		{"deepest", deep, deep},
		{"longest level", long, long},
		{"empty", "", ""},
		{"only separator", "/", ""},
		{"empty level", "a//b", ""},
		{"leading separator", "/a", ""},
		{"trailing separator", "a/", ""},
		{"star", "a*", ""},
		{"percent", "a/%", ""},
		{"control", "a\tb", ""},
		{"NUL", "a\x00b", ""},
		{"C1 control", "a\u0085b", ""},
		{"line separator", "a\u2028b", ""},
		{"not UTF-8", "a\xffb", ""},
		{"too deep", deep + "/a", ""},
		{"level too long", long + "x", ""},
		{"too long", strings.Repeat(long+"/", 4) + "x", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := cleanName(c.name)
			if got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("%q gives %q, %v, want %q", c.name, got, err, c.want)
			}
			if err != nil && !errors.Is(err, ErrName) {
				t.Errorf("%v is not ErrName", err)
			}
		})
	}
}

func FuzzCleanName(f *testing.F) {
	f.Add("inbox/a")
	f.Add("Ma\u0308rz/\u2028")
	f.Fuzz(func(t *testing.T, name string) {
		clean, err := cleanName(name)
		if err != nil {
			return
		}
		again, err := cleanName(clean)
		if err != nil || again != clean {
			t.Errorf("%q is clean, and gives %q, %v", clean, again, err)
		}
		if !utf8.ValidString(clean) || len(clean) > maxName || strings.ContainsRune(clean, 0) {
			t.Errorf("%q is no name", clean)
		}
	})
}
