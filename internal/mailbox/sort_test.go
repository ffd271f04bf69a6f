package mailbox

import (
	"strings"
	"testing"
	"time"
)

// The examples are those of RFC 5256, 2.1 and 5, spelt out, and what lies at their edges.
func TestBaseSubject(t *testing.T) {
	for _, c := range []struct {
		subject, base string
		reply         bool
	}{
		{"", "", false},
		{"hello", "hello", false},
		{"  hello\t world ", "hello world", false},
		{"Re: hello", "hello", true},
		{"RE:hello", "hello", true},
		{"Re : hello", "hello", true},
		{"re: Fw: FWD: hello", "hello", true},
		{"Re[2]: hello", "hello", true},
		{"Re [list] : hello", "hello", true},
		{"Reply: hello", "Reply: hello", false},
		{"[list] hello", "hello", false},
		{"[list] Re: [list] hello", "hello", true},
		{"[a][b] hello", "hello", false},
		{"[list]", "[list]", false},
		{"[a] [b]", "[b]", false},
		{"Re: [list]", "[list]", true},
		{"[unclosed hello", "[unclosed hello", false},
		{"[a[b] hello", "[a[b] hello", false},
		{"hello (fwd)", "hello", true},
		{"hello (FWD) (fwd) ", "hello", true},
		{"(fwd)", "", true},
		{"[fwd: hello]", "hello", true},
		{"[Fwd: [list] Re: hello (fwd)]", "hello", true},
		{"[fwd: [fwd: hello]]", "hello", true},
		{"[fwd: hello] more", "more", false},
		{"[fwd:]", "", true},
		{"Re:", "", true},
		{"Re: ", "", true},
		{"re", "re", false},
		{"[", "[", false},
	} {
		base, reply := baseSubject([]byte(c.subject))
		if string(base) != c.base || reply != c.reply {
			t.Errorf("%q: %q, %v, want %q, %v", c.subject, base, reply, c.base, c.reply)
		}
	}
}

// A base subject is its own, and found in linear time.
func FuzzBaseSubject(f *testing.F) {
	f.Add("Re: [x] [fwd: hello (fwd)]")
	f.Add(strings.Repeat("[x]", 100))
	f.Fuzz(func(t *testing.T, s string) {
		base, _ := baseSubject([]byte(s))
		if again, _ := baseSubject(base); string(again) != string(base) {
			t.Errorf("%q: %q, and of that %q", s, base, again)
		}
	})
}

func TestBaseSubjectIsLinear(t *testing.T) {
	for _, unit := range []string{"[x]", "[x] re", "re:", "(fwd)", "[fwd:", "[", "] ", "re[x]", "[fwd: [x] "} {
		start := time.Now()
		baseSubject([]byte(strings.Repeat(unit, maxSubject)))
		if took := time.Since(start); took > time.Second {
			t.Errorf("%q takes %v", unit, took)
		}
	}
}

func TestSort(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	for _, m := range []struct{ internal, text string }{
		{"2024-01-03T00:00:00Z", "Date: 2 Jan 2024 00:00 +0000\r\nFrom: Zoë <adam@x>\r\nTo: b@x\r\nCc: c@x\r\nSubject: Re: beta\r\n\r\n1"},
		{"2024-01-02T00:00:00Z", "Date: 2 Jan 2024 00:30 +0100\r\nFrom: bert@x\r\nTo: Anna <z@x>\r\nCc: a@x\r\nSubject: alpha\r\n\r\n333"},
		{"2024-01-01T00:00:00Z", "From: \"anton\" <Carl@x>\r\nTo: group: q@x;\r\nSubject: =?utf-8?q?=C3=84hre?=\r\n\r\n22"},
		{"2024-01-01T00:00:00Z", "Date: nonsense\r\nSubject: [list] BETA\r\n\r\n1"},
	} {
		internal, err := time.Parse(time.RFC3339, m.internal)
		h.must(err)
		d, structure := h.draft(m.text)
		_, err = h.Append(id, d, structure, internal, nil, nil)
		h.must(err)
	}
	for _, c := range []struct {
		what string
		keys []SortKey
		want []UID
	}{
		{"nothing", nil, []UID{1, 2, 3, 4}},
		{"arrival", []SortKey{{By: ByArrival}}, []UID{3, 4, 2, 1}},
		{"arrival back, equal ones in order", []SortKey{{By: ByArrival, Reverse: true}}, []UID{1, 2, 3, 4}},
		{"date", []SortKey{{By: ByDate}}, []UID{3, 4, 2, 1}},
		{"from", []SortKey{{By: ByFrom}}, []UID{4, 1, 2, 3}},
		{"to", []SortKey{{By: ByTo}}, []UID{4, 1, 3, 2}},
		{"cc", []SortKey{{By: ByCc}}, []UID{3, 4, 2, 1}},
		{"size", []SortKey{{By: BySize}}, []UID{4, 3, 2, 1}},
		{"subject", []SortKey{{By: BySubject}}, []UID{2, 3, 1, 4}},
		{"subject, then size", []SortKey{{By: BySubject}, {By: BySize}}, []UID{2, 3, 4, 1}},
		{"subject back, then size", []SortKey{{By: BySubject, Reverse: true}, {By: BySize}}, []UID{4, 1, 3, 2}},
		{"display from", []SortKey{{By: ByDisplayFrom}}, []UID{4, 3, 2, 1}},
		{"display to", []SortKey{{By: ByDisplayTo}}, []UID{4, 2, 1, 3}},
		{"relevancy", []SortKey{{By: ByRelevancy}}, []UID{3, 1, 2, 4}},
		{"relevancy back", []SortKey{{By: ByRelevancy, Reverse: true}}, []UID{4, 2, 1, 3}},
	} {
		got, err := h.Sort(t.Context(), id, nil, c.keys, map[UID]uint8{1: 50, 2: 20, 3: 100})
		h.must(err)
		equal(t, c.what, got, c.want)
	}
	got, err := h.Sort(t.Context(), id, set(2, 3, 9), []SortKey{{By: BySize}}, nil)
	h.must(err)
	equal(t, "some", got, []UID{3, 2})
}

// Words are found in any order, without marks, and how well they fit is told (RFC 6203).
func TestRank(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	h.append(id, "Subject: breaking IMAPs\r\n\r\n")
	h.append(id, "Subject: IMAP, broken: a break\r\n\r\n")
	h.append(id, "Subject: outbreak of imap\r\n\r\n")
	h.append(id, "Subject: nothing of it\r\n\r\n")
	found, ranks, err := h.Rank(t.Context(), id, nil, Criterion{Envelope: []HeaderTest{{"Subject", "bréak Imap"}}, Fuzzy: true})
	h.must(err)
	equal(t, "found", found.ToArray(), []UID{1, 2, 3})
	if !(ranks[2] == 100 && ranks[1] < 100 && ranks[3] < 100 && ranks[1] > 0 && ranks[3] > 0) {
		t.Errorf("ranks: %v", ranks)
	}
}
