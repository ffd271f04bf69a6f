package mime

import (
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzScan(f *testing.F) {
	for _, file := range golden(f) {
		msg, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	f.Add([]byte(deep(5)))
	f.Fuzz(func(t *testing.T, msg []byte) {
		s := check(t, msg)
		if len(msg) < 2*maxFields { // then no limit but that of depth can be met
			checkSlow(t, msg, s)
		}
		if !utf8.ValidString(s.Preview) {
			t.Errorf("preview %q", s.Preview)
		}
		if header := msg[:s.Root.Header.Len]; len(AppendFields(nil, header, nil, true)) > len(header)+4 {
			t.Errorf("fields of %q are %q", header, AppendFields(nil, header, nil, true))
		}
		r, ok := TextReader(&Part{Type: "text", Encoding: s.Root.Encoding, Params: s.Root.Params}, strings.NewReader(string(msg)))
		if _, err := io.Copy(io.Discard, r); err != nil || !ok {
			t.Errorf("text: %v", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	for _, file := range golden(f) {
		msg, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		stored, _ := scan(string(msg)).AppendBinary(nil)
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkDecoded(t, sealed(b)) })
}

func FuzzAddressList(f *testing.F) {
	for _, v := range []string{"a@b", `"A, B" <@x,@y:a@b> (c)`, "Us: a@b, C <c@d>;", "(((", `"\`, "<a@[1]>", "a:b:;;<@:@>"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		open := false
		for _, a := range parseAddresses(v, maxAddresses) {
			switch {
			case a.GroupEnd() && !open, a.GroupStart() && open, a.Mailbox == "" && a.Host != "":
				t.Errorf("%q: %q", v, a)
			case a.GroupEnd():
				open = false
			case a.GroupStart():
				open = true
			}
			if len(a.Name)+len(a.Route)+len(a.Mailbox)+len(a.Host) > len(v)+len(MissingHost)+len(MissingMailbox)+3 {
				t.Errorf("%q makes more of itself: %q", v, a)
			}
		}
		if open {
			t.Errorf("%q: a group has no end", v)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	for _, v := range []string{"x", "=?utf-8?q?=C3=B6?= =?iso-8859-1?B?9g==?=", "=?a?q?", "=?iso-2022-jp?B?GyRC?= =?x?q?y?="} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got := DecodeHeader(v)
		if !strings.Contains(v, "=?") && got != v {
			t.Errorf("%q is %q", v, got)
		}
		if len(got) > 8*len(v) {
			t.Errorf("%d octets of %d", len(got), len(v))
		}
		ParseDate(v)
		decodedParams(v)
	})
}
