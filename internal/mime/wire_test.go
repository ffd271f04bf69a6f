package mime

import (
	"slices"
	"strings"
	"testing"
)

func TestEnvelopeWire(t *testing.T) {
	const nobody = " NIL NIL NIL NIL NIL NIL NIL "
	for _, c := range []struct{ what, header, want string }{
		{"nothing", "", "(NIL" + nobody + "NIL NIL)"},
		{"fields that are empty", "Date:\nSubject: \nMessage-ID:\nIn-Reply-To:\n", `("" "" NIL NIL NIL NIL NIL NIL "" "")`},
		{"an address field that is empty", "To: \n", "(NIL" + nobody + "NIL NIL)"},
		{"texts as they stand", "Date: tomorrow\nSubject: =?utf-8?q?=C3=B6?=\nMessage-ID: none\nIn-Reply-To: <a@b> (c)\n",
			`("tomorrow" "=?utf-8?q?=C3=B6?=" NIL NIL NIL NIL NIL NIL "<a@b> (c)" "none")`},
		{"sender and reply-to are from", "From: Ann <a@b>\n",
			`(NIL NIL (("Ann" NIL "a" "b")) (("Ann" NIL "a" "b")) (("Ann" NIL "a" "b")) NIL NIL NIL NIL NIL)`},
		{"no space between addresses", "To: a@b, c@d\n", `(NIL NIL NIL NIL NIL ((NIL NIL "a" "b")(NIL NIL "c" "d")) NIL NIL NIL NIL)`},
		{"a group", "Cc: Us: a@b;\n", `(NIL NIL NIL NIL NIL NIL ((NIL NIL "Us" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL)) NIL NIL NIL)`},
		{"a source route", "Bcc: <@x,@y:a@b>\n", `(NIL NIL NIL NIL NIL NIL NIL ((NIL "@x,@y" "a" "b")) NIL NIL)`},
		{"what an address lacks", "To: ann, <@b>\n",
			`(NIL NIL NIL NIL NIL ((NIL NIL "ann" "MISSING_DOMAIN")(NIL NIL "MISSING_MAILBOX" "b")) NIL NIL NIL NIL)`},
		{"octets beyond ASCII", "Subject: \xf6\xc3\xb6\n", "(NIL {3}\r\n\xf6\xc3\xb6" + nobody[4:] + "NIL NIL)"},
		{"a control character", "Subject: a\x1bb\n", "(NIL {3}\r\na\x1bb" + nobody[4:] + "NIL NIL)"},
		{"a tab", "Subject: a\tb\n", "(NIL \"a\tb\"" + nobody[4:] + "NIL NIL)"},
		{"some quotes", `Subject: "a\b"` + "\n", `(NIL "\"a\\b\""` + nobody[4:] + "NIL NIL)"},
		{"many quotes", `Subject: """""` + "\n", "(NIL {5}\r\n\"\"\"\"\"" + nobody[4:] + "NIL NIL)"},
		{"a long text", "Subject: " + strings.Repeat("x", maxQuoted+1) + "\n",
			"(NIL {4097}\r\n" + strings.Repeat("x", maxQuoted+1) + nobody[4:] + "NIL NIL)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := check(t, []byte(crlf(c.header+"\n")))
			if got := string(s.Envelope.appendWire(nil)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestBodyStructureWire(t *testing.T) {
	for _, c := range []struct{ what, msg, want string }{
		{"nothing", "", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{"all of a text", `Content-Type: Text/HTML; Charset="x\"y"; a=
Content-ID: <1@b>
Content-Description: d
Content-Transfer-Encoding: Base64
Content-MD5: m
Content-Disposition: Inline; filename=f
Content-Language: de, en
Content-Location: http://l

eA==
`, `("text" "html" ("charset" "x\"y" "a" "") "<1@b>" "d" "base64" 6 1 "m" ("inline" ("filename" "f")) ("de" "en") "http://l")`},
		{"RFC 2231 pieces are joined, a charset stays", "Content-Type: x/y; a*0=1; a*1=2; b=o; b*=iso-8859-1''%F6; c*1*=%B6; c*0*=utf-8''%C3\n\n",
			`("x" "y" ("b" "o" "a" "12" "b*" "iso-8859-1''%F6" "c*" "utf-8''%C3%B6") NIL NIL "7bit" 0 NIL NIL NIL NIL)`},
		{"no lines of what is no text", "Content-Type: image/png\nContent-Disposition: attachment\n\nx\n",
			`("image" "png" NIL NIL NIL "7bit" 3 NIL ("attachment" NIL) NIL NIL)`},
		{"a multipart", "Content-Type: multipart/mixed; boundary=b\nContent-Language: de\n\n--b\n\none\n--b\n\ntwo\n--b--\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)` +
				`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)` +
				` "mixed" ("boundary" "b") NIL ("de") NIL)`},
		{"a multipart without parts", "Content-Type: multipart/mixed\n\nx",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) "mixed" NIL NIL NIL NIL)`},
		{"a message in a message", "Content-Type: message/rfc822\n\nSubject: s\n\none\n",
			`("message" "rfc822" NIL NIL NIL "7bit" 19 (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL)` +
				` ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 1 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)`},
		{"a message that cannot be opened", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\neA==\n",
			`("application" "octet-stream" NIL NIL NIL "base64" 6 NIL NIL NIL NIL)`},
		{"a type that is no ASCII", "Content-Type: t\xc3\xb6/x\n\n", "({3}\r\nt\xc3\xb6 \"x\" NIL NIL NIL \"7bit\" 0 NIL NIL NIL NIL)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := check(t, []byte(crlf(c.msg)))
			if got := string(s.Root.appendWire(nil)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestUnsent says that what BODYSTRUCTURE does not give of a multipart is kept all the same.
func TestUnsent(t *testing.T) {
	s := check(t, []byte(crlf("Content-Type: multipart/mixed; boundary=b\nContent-ID: <1@b>\nContent-Description: d\n"+
		"Content-Transfer-Encoding: base64\nContent-MD5: m\n\n--b\n\none\n--b--\n")))
	if p := s.Root; p.ID != "<1@b>" || p.Description != "d" || p.Encoding != "base64" || p.MD5 != "m" {
		t.Errorf("%q %q %q %q", p.ID, p.Description, p.Encoding, p.MD5)
	}
}

func TestReferences(t *testing.T) {
	for _, c := range []struct {
		what, header string
		want         []string
	}{
		{"none", "", nil},
		{"in order", "References: <1@x>\n <2@x>\t<3@x>\n", []string{"1@x", "2@x", "3@x"}},
		{"References alone, if it has one", "In-Reply-To: <9@x>\nReferences: <1@x>\n", []string{"1@x"}},
		{"the first of In-Reply-To", "In-Reply-To: Your mail of <9@x> and <8@x>\n", []string{"9@x"}},
		{"In-Reply-To without valid References", "References: none\nIn-Reply-To: <9@x>\n", []string{"9@x"}},
		{"no ids without something on both sides", "References: <1> <@> <@x> <a@> <> <1@x>\n", []string{"1@x"}},
		{"quotes that do not matter", `References: <"1"@x> <"a\"b"@x>` + "\n", []string{"1@x", `a"b@x`}},
		{"folded ids", "References: <1\n @x>\n", []string{"1@x"}},
		{"brackets that do not end", "References: <1@x <2@x> 3@x> <4@x\n", []string{"2@x"}},
		{"the first field", "References: <1@x>\nReferences: <2@x>\n", []string{"1@x"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := check(t, []byte(crlf(c.header+"\n"))).References; !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	inner := check(t, []byte(crlf("Content-Type: message/rfc822\n\nReferences: <1@x>\nIn-Reply-To: <2@x>\n\n")))
	if inner.References != nil {
		t.Errorf("of the message inside: %q", inner.References)
	}
	many := references("<root@x>" + strings.Repeat("<a@x>", maxReferences) + "<last@x>")
	if len(many) != maxReferences || many[0] != "root@x" || many[maxReferences-1] != "last@x" {
		t.Errorf("%d of too many: %q", len(many), many)
	}
}

func TestStoredWords(t *testing.T) {
	s := scan(crlf("Subject: =?utf-8?q?=C3=B6?= \xff\nFrom: =?utf-8?q?J=C3=B6?= <j@x>\nTo: Us: a@b;\nMessage-ID: x <\"1\"@x>\n" +
		"Date: Fri, 1 Jan 2021 12:00:00 +0230\n\n"))
	b, _ := s.AppendBinary(nil)
	v, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	sent, _ := v.Sent()
	for _, c := range []struct{ got, want string }{
		{string(v.Subject()), "ö \uFFFD"},
		{string(v.MessageID()), "1@x"},
		{first(v.First(From)), `"Jö" "j" "x"`},
		{first(v.First(To)), `"" "Us" ""`},
		{first(v.First(Cc)), `"" "" ""`},
		{sent.Format("2006-01-02 15:04 -0700"), "2021-01-01 12:00 +0230"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// TestOpenCostsNothing says that what FETCH sends is not copied.
func TestOpenCostsNothing(t *testing.T) {
	b, _ := scan(string(typical())).AppendBinary(nil)
	if n := testing.AllocsPerRun(100, func() {
		v, _ := Open(b)
		_, _ = v.Envelope(), v.BodyStructure()
		v.First(From)
		v.Sent()
		for range v.References() {
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
