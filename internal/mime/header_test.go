package mime

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseAddressList(t *testing.T) {
	at := func(name, mailbox, host string) Address { return Address{Name: name, Mailbox: mailbox, Host: host} }
	for _, c := range []struct {
		what, in string
		want     []Address
	}{
		{"nothing", "", nil},
		{"white space and commas", " , ,\t", nil},
		{"an address", "a@b.c", []Address{at("", "a", "b.c")}},
		{"an address in angles", "<a@b.c>", []Address{at("", "a", "b.c")}},
		{"a name", "Ann Other <a@b.c>", []Address{at("Ann Other", "a", "b.c")}},
		{"an unquoted dot in a name", "Ann B. Other <a@b.c>", []Address{at("Ann B. Other", "a", "b.c")}},
		{"a quoted name with a comma", `"Other, Ann" <a@b.c>`, []Address{at("Other, Ann", "a", "b.c")}},
		{"quoted pairs in a name", `"A \"x\" \\ B" <a@b.c>`, []Address{at(`A "x" \ B`, "a", "b.c")}},
		{"words and quotes mixed", `Ann "the" Other <a@b.c>`, []Address{at("Ann the Other", "a", "b.c")}},
		{"an encoded-word stays", "=?utf-8?q?J=C3=B6rg?= <j@b.c>", []Address{at("=?utf-8?q?J=C3=B6rg?=", "j", "b.c")}},
		{"a name in a comment", "a@b.c (Ann Other)", []Address{at("Ann Other", "a", "b.c")}},
		{"a comment after an angle address", "<a@b.c> (Ann)", []Address{at("Ann", "a", "b.c")}},
		{"nested comments", "a@b.c (Ann (the) Other)", []Address{at("Ann (the) Other", "a", "b.c")}},
		{"comments everywhere", "(x) a (y) @ (z) b.c", []Address{at("z", "a", "b.c")}},
		{"two", "a@b.c, d@e.f", []Address{at("", "a", "b.c"), at("", "d", "e.f")}},
		{"folded", "a@b.c,\r\n d@e.f", []Address{at("", "a", "b.c"), at("", "d", "e.f")}},
		{"semicolons between", "a@b.c; d@e.f", []Address{at("", "a", "b.c"), at("", "d", "e.f")}},
		{"a quoted local part", `"a b"@c.d`, []Address{at("", "a b", "c.d")}},
		{"white space round the at", "a @ b . c", []Address{at("", "a", "b.c")}},
		{"a domain literal", "a@[IPv6:::1]", []Address{at("", "a", "[IPv6:::1]")}},
		{"a domain literal in angles", "<a@[10.0.0.1]>", []Address{at("", "a", "[10.0.0.1]")}},
		{"a source route", "Ann <@x.y,@z:a@b.c>", []Address{{"Ann", "@x.y,@z", "a", "b.c"}}},
		{"an address as a name", "a@b.c <a@b.c>", []Address{at("a@b.c", "a", "b.c")}},
		{"two ats", "<a@b@c.d>", []Address{at("", "a@b", "c.d")}},
		{"no domain", "root", []Address{at("", "root", MissingHost)}},
		{"no domain in angles", "Root <root>", []Address{at("Root", "root", MissingHost)}},
		{"no mailbox", "<@b.c>", []Address{at("", MissingMailbox, "b.c")}},
		{"empty angles", "<>", nil},
		{"empty angles with a name", "Ann <>", []Address{at("Ann", MissingMailbox, MissingHost)}},
		{"no end of angle", `"A" <a@b.c, "D" <d@e.f>`, []Address{at("A", "a", "b.c"), at("D", "d", "e.f")}},
		{"no end of quote", `"A <a@b.c>`, []Address{at("A <a@b.c>", MissingMailbox, MissingHost)}},
		{"a name alone", `Ann Other, "Ann"`, []Address{at("Ann Other", MissingMailbox, MissingHost), at("", "Ann", MissingHost)}},
		{"no end of comment", `a@b.c (A \`, []Address{at(`A \`, "a", "b.c")}},
		{"a group", "Us: a@b.c, D <d@e.f>;", []Address{{Mailbox: "Us"}, at("", "a", "b.c"), at("D", "d", "e.f"), {}}},
		{"an empty group", "undisclosed-recipients:;", []Address{{Mailbox: "undisclosed-recipients"}, {}}},
		{"a group without end", "Us: a@b.c", []Address{{Mailbox: "Us"}, at("", "a", "b.c"), {}}},
		{"after a group", "Us:;, a@b.c", []Address{{Mailbox: "Us"}, {}, at("", "a", "b.c")}},
		{"a group in a group", "A: B: a@b.c;;", []Address{{Mailbox: "A"}, at("", "a", "b.c"), {}}},
		{"a quoted group name", `"A, B": a@b.c;`, []Address{{Mailbox: "A, B"}, at("", "a", "b.c"), {}}},
		{"octets that are no UTF-8", "J\xf6rg <j@b.c>", []Address{at("J\xf6rg", "j", "b.c")}},
		{"UTF-8", "Jörg <jörg@bü.c>", []Address{at("Jörg", "jörg", "bü.c")}},
		{"quotes that were quoted", `\"Ann\" <a@b.c>`, []Address{at(`"Ann"`, "a", "b.c")}},
		{"a backslash before a quote", `x\"(y`, []Address{at("y", `x"`, MissingHost)}},
		{"an angle that only closes", "a@b.c>, >", []Address{at("", "a", "b.c")}},
		{"a name without angles", "Ann Other a@b.c", []Address{at("Ann Other", "a", "b.c")}},
		{"white space round the dots", "a . b@c . d, a. b@c.d", []Address{at("", "a.b", "c.d"), at("", "a.b", "c.d")}},
		{"a bracket", "a[b <a@b.c>", []Address{at("a[b", "a", "b.c")}},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := parseAddresses(c.in, maxAddresses); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q\n got %+q\nwant %+q", c.in, got, c.want)
			}
		})
	}
	if n := len(parseAddresses(strings.Repeat("a@b,", maxAddresses+10), maxAddresses)); n != maxAddresses {
		t.Errorf("%d addresses, want %d", n, maxAddresses)
	}
}

func TestDecodeHeader(t *testing.T) {
	for _, c := range []struct{ what, in, want string }{
		{"nothing", "", ""},
		{"plain", "plain text", "plain text"},
		{"octets without words", "J\xf6rg", "J\xf6rg"},
		{"Q", "=?iso-8859-1?Q?J=F6rg_A=2E?= x", "Jörg A. x"},
		{"B", "=?utf-8?B?SsO2cmc=?=", "Jörg"},
		{"B without padding", "=?utf-8?B?SsO2cmc?=", "Jörg"},
		{"text between", "a =?utf-8?q?b?= c =?utf-8?q?d?=", "a b c d"},
		{"white space between words", "=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"},
		{"white space before a word", "a  =?utf-8?q?b?=", "a  b"},
		{"a character split between words", "=?utf-8?q?=C3?= =?utf-8?q?=B6?=", "ö"},
		{"and between B words", "=?utf-8?B?ww==?= =?utf-8?B?tg==?=", "ö"},
		{"two charsets", "=?utf-8?q?=C3=B6?= =?iso-8859-1?q?=F6?=", "öö"},
		{"a language", "=?iso-8859-1*de?q?=F6?=", "ö"},
		{"an unknown charset", "=?x-none?q?a?= =?x-none?q?b?= c", "=?x-none?q?a?= =?x-none?q?b?= c"},
		{"an unknown encoding", "=?utf-8?x?a?=", "=?utf-8?x?a?="},
		{"no charset", "=??q?a?=", "=??q?a?="},
		{"no end", "=?utf-8?q?a", "=?utf-8?q?a"},
		{"a word after broken ones", "=? =?x?y =?utf-8?q?a?=", "=? =?x?y a"},
		{"spaces in a word", "=?utf-8?q?a b?=", "a b"},
		{"no hex", "=?utf-8?q?a=ZZ=4?=", "a=ZZ=4"},
		{"joined to text", "a=?utf-8?q?b?=c", "abc"},
		{"line ends do not come back", "=?utf-8?q?a=0D=0Ab=00?=", "ab"},
		{"Japanese", "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := DecodeHeader(c.in); got != c.want {
				t.Errorf("%q is %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestParseDate(t *testing.T) {
	for _, c := range []struct{ what, in, want string }{
		{"RFC 5322", "Mon, 02 Jan 2006 15:04:05 -0700", "2006-01-02T15:04:05-07:00"},
		{"no weekday", "2 Jan 2006 15:04:05 +0100", "2006-01-02T15:04:05+01:00"},
		{"no seconds", "2 Jan 2006 15:04 +0000", "2006-01-02T15:04:00Z"},
		{"a comment", "Mon, 2 Jan 2006 15:04:05 -0700 (MST (x))", "2006-01-02T15:04:05-07:00"},
		{"a named zone", "Mon, 2 Jan 2006 15:04:05 EST", "2006-01-02T15:04:05-05:00"},
		{"GMT", "Mon, 2 Jan 2006 15:04:05 GMT", "2006-01-02T15:04:05Z"},
		{"an unknown zone", "Mon, 2 Jan 2006 15:04:05 XYZ", "2006-01-02T15:04:05Z"},
		{"no zone", "Mon, 2 Jan 2006 15:04:05", "2006-01-02T15:04:05Z"},
		{"two digits", "2 Jan 06 15:04:05 +0000", "2006-01-02T15:04:05Z"},
		{"two old digits", "2 Jan 96 15:04:05 +0000", "1996-01-02T15:04:05Z"},
		{"three digits", "2 Jan 106 15:04:05 +0000", "2006-01-02T15:04:05Z"},
		{"asctime", "Mon Jan  2 15:04:05 2006", "2006-01-02T15:04:05Z"},
		{"a long month", "2 January 2006 15:04:05 +0000", "2006-01-02T15:04:05Z"},
		{"dashes", "Monday, 02-Jan-06 15:04:05 GMT", "2006-01-02T15:04:05Z"},
		{"folded", "Mon,\r\n 2 Jan 2006\r\n 15:04:05 +0000", "2006-01-02T15:04:05Z"},
		{"date only", "2 Jan 2006", "2006-01-02T00:00:00Z"},
		{"a zone with GMT before it", "Mon, 2 Jan 2006 15:04:05 GMT+0200", "2006-01-02T15:04:05Z"},
		{"a zone joined on", "Mon, 2 Jan 2006 15:04:05+0200", "2006-01-02T15:04:05+02:00"},
		{"an absurd zone", "Mon, 2 Jan 2006 15:04:05 +9999", "2006-01-02T15:04:05Z"},
		{"a leap second", "Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00Z"},
		{"nothing", "", ""},
		{"words", "yesterday at noon", ""},
		{"no year", "Mon, 2 Jan", ""},
		{"a day out of range", "45 Jan 2006 15:04:05 +0000", ""},
		{"an hour out of range", "2 Jan 2006 35:04:05 +0000", ""},
		{"a clock that is an offset", "2 Jan 2006 1-:2", ""},
		{"white space and comments in the time", "Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21T09:55:06-06:00"},
		{"afternoon", "18 Feb 01 12:29:13 AM", "2001-02-18T00:29:13Z"},
		{"morning", "18 Feb 01 1:29 pm +0000", "2001-02-18T13:29:00Z"},
		{"dashes only", "--- : -", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, ok := ParseDate(c.in)
			text := ""
			if ok {
				text = got.Format(time.RFC3339)
			}
			if text != c.want {
				t.Errorf("%q is %q, want %q", c.in, text, c.want)
			}
		})
	}
}

func TestHeaderFields(t *testing.T) {
	const header = "From alice Mon Jan  2 15:04:05 2006\r\n" +
		"A: 1\r\n" +
		"b : 2\n" +
		"no field\r\n of ours: 3\r\n" +
		"C:\r\n 4\r\n\t5\r\n" +
		": nameless\r\n" +
		"a: 6\r\n" +
		"\r\n" +
		"D: body\r\n"
	var got []string
	for name, raw := range HeaderFields([]byte(header)) {
		got = append(got, fmt.Sprintf("%s=%s %q", name, Unfold(raw), raw))
	}
	want := []string{`A=1 "A: 1\r\n"`, `b=2 "b : 2\n"`, `C=4	5 "C:\r\n 4\r\n\t5\r\n"`, `a=6 "a: 6\r\n"`}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("fields\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for range HeaderFields([]byte(header)) {
		break // leaving early is allowed
	}
}

func TestFields(t *testing.T) {
	const header = "A: 1\r\nB: 2\r\n b\r\nC: 3\r\na: 4\r\n\r\n"
	for _, c := range []struct {
		what, header string
		names        []string
		not          bool
		want         string
	}{
		{"one", header, []string{"b"}, false, "B: 2\r\n b\r\n\r\n"},
		{"all of a name, in order", header, []string{"C", "A"}, false, "A: 1\r\nC: 3\r\na: 4\r\n\r\n"},
		{"none", header, []string{"X"}, false, "\r\n"},
		{"no names", header, nil, false, "\r\n"},
		{"not", header, []string{"A"}, true, "B: 2\r\n b\r\nC: 3\r\n\r\n"},
		{"not none", header, nil, true, header},
		{"no blank line", "A: 1\r\nB: 2\r\n", []string{"B"}, false, "B: 2\r\n\r\n"},
		{"no line end", "A: 1\r\nB: 2", []string{"B"}, false, "B: 2\r\n\r\n"},
		{"no header", "", []string{"B"}, false, "\r\n"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := string(AppendFields(nil, []byte(c.header), c.names, c.not)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUnfold(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"A: b\r\n":             "b",
		"A:b":                  "b",
		"A:\r\n b\r\n\tc \r\n": "b\tc",
		"A: b\n  c\n":          "b  c",
		"A: a: b\r\n":          "a: b",
		"A: x\x00y\rz\r\n":     "xy z",
		"A: \r\n \r\n":         "",
		"A: \xff\r\n":          "\xff",
	} {
		raw := []byte(in)
		if got := Unfold(raw); got != want || string(raw) != in {
			t.Errorf("%q is %q, want %q; raw is %q", in, got, want, raw)
		}
	}
}

func TestParams(t *testing.T) {
	for _, c := range []struct {
		what, in string
		want     []Param
	}{
		{"none", "", nil},
		{"plain", "; a=b", []Param{{"a", "b"}}},
		{"order and case", "; B=x; A=y", []Param{{"b", "x"}, {"a", "y"}}},
		{"quoted", `; a="b; \"c\""; d=e`, []Param{{"a", `b; "c"`}, {"d", "e"}}},
		{"no end of quote", `; a="b; c`, []Param{{"a", "b; c"}}},
		{"white space", "; a = b ; c\t=\td", []Param{{"a", "b"}, {"c", "d"}}},
		{"comments", "; (x) a=b (y); c=d", []Param{{"a", "b"}, {"c", "d"}}},
		{"unquoted specials", "; a=b@c/d e; f=g", []Param{{"a", "b@c/d e"}, {"f", "g"}}},
		{"empty ones", ";; ;a=b;;", []Param{{"a", "b"}}},
		{"junk between", "; ???; a=b; c; d=", []Param{{"a", "b"}, {"d", ""}}},
		{"the first counts", "; a=1; a=2", []Param{{"a", "1"}}},
		{"extended", "; a*=iso-8859-1'de'J%F6rg", []Param{{"a", "Jörg"}}},
		{"extended wins", `; a="x"; b=1; a*=utf-8''%C3%B6`, []Param{{"a", "ö"}, {"b", "1"}}},
		{"extended without a value", "; a*=", []Param{{"a", ""}}},
		{"extended in an unknown charset does not win", "; a*=x-none''%F6; a=b", []Param{{"a", "b"}}},
		{"extended wins over segments", "; a*=''x; a*0=y", []Param{{"a", "x"}}},
		{"extended in an unknown charset", "; a*=x-none''%F6", []Param{{"a*", "x-none''%F6"}}},
		{"extended without a charset", "; a*=%41", []Param{{"a", "A"}}},
		{"segments", `; a*0="x"; a*1=y; a*2=z`, []Param{{"a", "xyz"}}},
		{"segments out of order", "; a*2=z; a*0=x; a*1=y", []Param{{"a", "xyz"}}},
		{"extended segments", "; a*0*=utf-8''%C3; a*1*=%B6; a*2=%41", []Param{{"a", "ö%41"}}},
		{"a gap", "; a*0=x; a*2=z", []Param{{"a", "x"}}},
		{"a segment twice", "; a*0=x; a*1=y; a*1=z", []Param{{"a", "xy"}}},
		{"two names in segments", "; a*0=x; b*0=1; a*1=y; b*1=2", []Param{{"a", "xy"}, {"b", "12"}}},
		{"line ends do not come back", "; a*=utf-8''%0D%0Ax%00", []Param{{"a", "x"}}},
		{"an index that is none", "; a*x=y", []Param{{"a*x", "y"}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := decodedParams(c.in); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q\n got %+q\nwant %+q", c.in, got, c.want)
			}
		})
	}
}

func decodedParams(v string) []Param {
	params, _ := decodeParams(parseParams(v))
	return params
}
