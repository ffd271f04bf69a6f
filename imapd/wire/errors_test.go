package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestSyntaxErrors(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"", `an empty line is no command`},
		{"   ", `an empty line is no command`},
		{"(", `expected a tag, found "("`},
		{"+ NOOP", `expected a tag, found "+ NOOP"`},
		{"\x16\x03\x01", `expected a tag, found "\x16\x03\x01"`},
		{"a1", `a tag without a command`},
		{"a1 ", `a tag without a command`},
		{"a1\tNOOP", `expected a space, found "\tNOOP"`},
		{"a1 (", `expected the name of a command, found "("`},
		{"a1 FROB x", `unknown command "FROB"`},
		{"a1 " + strings.Repeat("X", 100), `expected the name of a command, found "` + strings.Repeat("X", 40) + `"...`},
		{"a1 UID", `unknown command "UID"`},
		{"a1 UID NOOP", `NOOP cannot have UID in front`},
		{"a1 UID FETCH", `UID FETCH: expected a space, found the end of the line`},
		{"a1 NOOP x", `NOOP: expected the end of the command, found "x"`},
		{"a1 NOOP\r", `NOOP: expected the end of the command, found "\r"`},

		{"a1 LOGIN joe", `LOGIN: expected a space, found the end of the line`},
		{`a1 LOGIN joe "secret`, `LOGIN: expected a quoted string that ends, found something else`},
		{"a1 LOGIN joe secret more", `LOGIN: expected the end of the command, found something else`},
		{"a1 LOGIN {3+}\r\na\x00b x", `LOGIN: a literal with NUL`},
		{"a1 AUTHENTICATE", `AUTHENTICATE: expected a space, found the end of the line`},
		{"a1 AUTHENTICATE PLAIN AGE", `AUTHENTICATE: expected base64, found something else`},
		{"a1 AUTHENTICATE PLAIN = x", `AUTHENTICATE: expected base64, found something else`},
		{"a1 ENABLE", `ENABLE: expected a space, found the end of the line`},
		{"a1 ENABLE (", `ENABLE: expected a capability, found "("`},
		{"a1 ID", `ID: expected a space, found the end of the line`},
		{"a1 ID x", `ID: expected a list of fields and values, or NIL, found "x"`},
		{`a1 ID ("a")`, `ID: expected a space, found ")"`},
		{`a1 ID ("a" b)`, `ID: expected a value in quotes, or NIL, found "b)"`},
		{"a1 COMPRESS", `COMPRESS: expected a space, found the end of the line`},

		{"a1 SELECT", `SELECT: expected a space, found the end of the line`},
		{"a1 SELECT (", `SELECT: expected the name of a mailbox, found "("`},
		{"a1 SELECT a x", `SELECT: expected a list of parameters, found "x"`},
		{"a1 SELECT a ()", `SELECT: an empty list of parameters`},
		{"a1 SELECT a (FROB)", `SELECT: expected CONDSTORE or QRESYNC, found "FROB)"`},
		{"a1 SELECT a (QRESYNC (0 1))", `SELECT: expected a UIDVALIDITY, found "0 1))"`},
		{"a1 SELECT a (QRESYNC (1 0))", `SELECT: expected a mod-sequence, found "0))"`},
		{"a1 SELECT a (QRESYNC (1 9223372036854775808))", `SELECT: expected a mod-sequence, found "9223372036854775808))"`},
		{"a1 SELECT a (QRESYNC (1 2 1:*))", `SELECT: expected known UIDs without "*", found "1:*))"`},
		{"a1 SELECT a (QRESYNC (1 2 (1:2 5)))", `SELECT: not as many known UIDs as message numbers`},
		{"a1 SELECT &AGE-", `SELECT: the name of the mailbox is not modified UTF-7 in its one canonical form (RFC 3501, 5.1.3)`},
		{"a1 SELECT \"\xff\"", `SELECT: the name of the mailbox is not UTF-8`},
		{"a1 SELECT {2+}\r\na\n", `SELECT: the name of the mailbox has NUL, CR or LF`},
		{"a1 CREATE a (USE)", `CREATE: expected a space, found ")"`},
		{"a1 CREATE a (x)", `CREATE: expected USE, found "x)"`},
		{"a1 DELETE a b", `DELETE: expected the end of the command, found "b"`},
		{"a1 RENAME a", `RENAME: expected a space, found the end of the line`},
		{"a1 SUBSCRIBE", `SUBSCRIBE: expected a space, found the end of the line`},
		{"a1 UNSUBSCRIBE {-1}", `UNSUBSCRIBE: expected a literal, found "{-1}"`},
		{"a1 UNSUBSCRIBE {5} ", `UNSUBSCRIBE: expected a literal, found "{5} "`},
		{`a1 LIST ""`, `LIST: expected a space, found the end of the line`},
		{`a1 LIST (FROB) "" *`, `LIST: expected SUBSCRIBED, REMOTE, RECURSIVEMATCH or SPECIAL-USE, found "FROB) \"\" *"`},
		{`a1 LIST (RECURSIVEMATCH) "" *`, `LIST: RECURSIVEMATCH needs an option to go with, as SUBSCRIBED`},
		{`a1 LIST "" ()`, `LIST: an empty list of patterns`},
		{`a1 LIST "" * (`, `LIST: expected RETURN, found "("`},
		{`a1 LIST "" * RETURN (FROB)`, `LIST: expected SUBSCRIBED, CHILDREN, SPECIAL-USE, MYRIGHTS, STATUS or METADATA, found "FROB)"`},
		{`a1 LIST "" * RETURN (STATUS (X))`, `LIST: expected an item of STATUS, found "X))"`},
		{`a1 LSUB "" * x`, `LSUB: expected the end of the command, found "x"`},
		{"a1 STATUS a", `STATUS: expected a space, found the end of the line`},
		{"a1 STATUS a ()", `STATUS: an empty list of items`},
		{"a1 STATUS a (MESSAGES,UIDNEXT)", `STATUS: expected an item of STATUS, found "MESSAGES,UIDNEXT)"`},
		{"a1 STATUS a (MESSAGES", `STATUS: expected a space or ")", found the end of the line`},
		{"a1 GETACL", `GETACL: expected a space, found the end of the line`},
		{"a1 SETACL a b", `SETACL: expected a space, found the end of the line`},
		{"a1 DELETEACL a", `DELETEACL: expected a space, found the end of the line`},
		{"a1 GETMETADATA a (DEPTH 2) /x", `GETMETADATA: expected 0, 1 or "infinity", found "2) /x"`},
		{"a1 GETMETADATA a x", `GETMETADATA: the name of an entry begins with a slash, does not end in one, and never has two together`},
		{"a1 GETMETADATA a ()", `GETMETADATA: an empty list of entries`},
		{`a1 SETMETADATA a (/x)`, `SETMETADATA: expected a space, found ")"`},
		{`a1 SETMETADATA a ("/x*" "v")`, `SETMETADATA: the name of an entry is printable ASCII without wildcards`},
		{`a1 SETMETADATA a (/x v)`, `SETMETADATA: expected a value, found "v)"`},
		{"a1 GETQUOTA", `GETQUOTA: expected a space, found the end of the line`},
		{`a1 SETQUOTA "" (STORAGE x)`, `SETQUOTA: expected a limit, found "x)"`},
		{`a1 SETQUOTA "" (STORAGE 9223372036854775808)`, `SETQUOTA: expected a limit, found "9223372036854775808)"`},
		{"a1 NOTIFY", `NOTIFY: expected a space, found the end of the line`},
		{"a1 NOTIFY x", `NOTIFY: expected SET or NONE, found "x"`},
		{"a1 NOTIFY SET (x", `NOTIFY: expected SELECTED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE, SUBTREE-ONE or MAILBOXES, found "x"`},
		{"a1 NOTIFY SET (personal x)", `NOTIFY: expected a list of events, found "x)"`},

		{"a1 UID EXPUNGE", `UID EXPUNGE: expected a space, found the end of the line`},
		{"a1 EXPUNGE 1", `EXPUNGE: expected the end of the command, found "1"`},
		{"a1 COPY 0 a", `COPY: expected a set of messages, found "0 a"`},
		{"a1 COPY 1:0 a", `COPY: expected a set of messages, found "1:0 a"`},
		{"a1 COPY 4294967296 a", `COPY: expected a set of messages, found "4294967296 a"`},
		{"a1 COPY 1,,2 a", `COPY: expected a set of messages, found "1,,2 a"`},
		{"a1 COPY 1:2:3 a", `COPY: expected a set of messages, found "1:2:3 a"`},
		{"a1 COPY 1, a", `COPY: expected a set of messages, found "1, a"`},
		{"a1 COPY 1x a", `COPY: expected a set of messages, found "1x a"`},
		{"a1 MOVE 1", `MOVE: expected a space, found the end of the line`},
		{"a1 STORE 1 FLAGS", `STORE: expected a space, found the end of the line`},
		{"a1 STORE 1 *FLAGS x", `STORE: expected FLAGS or FLAGS.SILENT, found "*FLAGS x"`},
		{`a1 STORE 1 FLAGS (\*)`, `STORE: expected a flag, found "\\*)"`},
		{`a1 STORE 1 (FROB 1) FLAGS x`, `STORE: expected UNCHANGEDSINCE, found "FROB 1) FLAGS x"`},
		{"a1 FETCH foo ALL", `FETCH: expected a set of messages, found "foo ALL"`},
		{"a1 FETCH 1", `FETCH: expected a space, found the end of the line`},
		{"a1 FETCH 1 ()", `FETCH: an empty list of items`},
		{"a1 FETCH 1 FROB", `FETCH: expected an item of FETCH, found "FROB"`},
		{"a1 FETCH 1 (ALL)", `FETCH: expected an item of FETCH, found "ALL)"`},
		{"a1 FETCH 1 (FLAGS", `FETCH: expected a space or ")", found the end of the line`},
		{"a1 FETCH 1 BODY[", `FETCH: expected a section, found the end of the line`},
		{"a1 FETCH 1 BODY[MIME]", `FETCH: expected a section, found "MIME]"`},
		{"a1 FETCH 1 BODY[0]", `FETCH: expected the number of a part, found "0]"`},
		{"a1 FETCH 1 BODY[1.]", `FETCH: expected a section, found "]"`},
		{"a1 FETCH 1 BODY[1TEXT]", `FETCH: expected ']', found "TEXT]"`},
		{"a1 FETCH 1 BODY[HEADER.FIELDS]", `FETCH: expected a space, found "]"`},
		{"a1 FETCH 1 BODY[HEADER.FIELDS ()]", `FETCH: an empty list of header fields`},
		{"a1 FETCH 1 BODY[]<1>", `FETCH: expected '.', found ">"`},
		{"a1 FETCH 1 BODY[]<0.0>", `FETCH: expected a number of octets, found "0>"`},
		{"a1 FETCH 1 BODY[]<9223372036854775808.1>", `FETCH: expected the first octet, found "9223372036854775808.1>"`},
		{"a1 FETCH 1 BODY[" + strings.Repeat("1.", 5000) + "1]", `FETCH: a part more than 100 deep`},
		{"a1 FETCH 1 BINARY[TEXT]", `FETCH: expected ']', found "TEXT]"`},
		{"a1 FETCH 1 BINARY[1.]", `FETCH: expected the number of a part, found "]"`},
		{"a1 FETCH 1 BINARY.SIZE[1]<0.1>", `FETCH: expected a space, found "<0.1>"`},
		{"a1 FETCH 1 UID (FROB)", `FETCH: expected CHANGEDSINCE, VANISHED or PARTIAL, found "FROB)"`},
		{"a1 FETCH 1 UID (VANISHED)", `FETCH: VANISHED is for UID FETCH with CHANGEDSINCE`},
		{"a1 UID FETCH 1 UID (PARTIAL 1:-5)", `UID FETCH: a range counts from one end`},
		{"a1 UID FETCH 1 UID (PARTIAL 0:5)", `UID FETCH: expected a number of a range, found "0:5)"`},
		{"a1 FETCH 1 (" + strings.Repeat("UID ", 501) + ")", `FETCH: more than 500 items for each message`},

		{"a1 SEARCH", `SEARCH: expected a space, found the end of the line`},
		{"a1 SEARCH FROB", `SEARCH: expected a search key, found "FROB"`},
		{"a1 SEARCH FROM", `SEARCH: expected a space, found the end of the line`},
		{"a1 SEARCH NOT", `SEARCH: expected a space, found the end of the line`},
		{"a1 SEARCH OR ALL", `SEARCH: expected a space, found the end of the line`},
		{"a1 SEARCH ()", `SEARCH: an empty list of search keys`},
		{"a1 SEARCH (ALL", `SEARCH: expected a space or ")", found the end of the line`},
		{"a1 SEARCH ALL)", `SEARCH: expected the end of the command, found ")"`},
		{"a1 SEARCH SINCE 30-Feb-2024", `SEARCH: expected a date as in 1-Feb-2024, found "30-Feb-2024"`},
		{`a1 SEARCH SINCE "1-Feb-2024`, `SEARCH: expected a date as in 1-Feb-2024, found "\"1-Feb-2024"`},
		{"a1 SEARCH SINCE 1-Feb-24", `SEARCH: expected a date as in 1-Feb-2024, found "1-Feb-24"`},
		{"a1 SEARCH LARGER x", `SEARCH: expected a number of octets, found "x"`},
		{"a1 SEARCH YOUNGER 0", `SEARCH: expected a number of seconds, found "0"`},
		{"a1 SEARCH MODSEQ 9223372036854775808", `SEARCH: expected a mod-sequence, found "9223372036854775808"`},
		{`a1 SEARCH MODSEQ "/flags/x" some 1`, `SEARCH: a mod-sequence is of priv, shared or all`},
		{"a1 SEARCH KEYWORD \\Seen", `SEARCH: expected a keyword, found "\\Seen"`},
		{"a1 SEARCH RETURN (FROB) ALL", `SEARCH: expected MIN, MAX, ALL, COUNT, SAVE, PARTIAL, UPDATE, CONTEXT or RELEVANCY, each once, found "FROB) ALL"`},
		{"a1 SEARCH RETURN (ALL PARTIAL 1:2) ALL", `SEARCH: RETURN with both ALL and PARTIAL`},
		{"a1 SEARCH RETURN () ", `SEARCH: expected a search key, found the end of the line`},
		{"a1 SEARCH " + strings.Repeat("(", 101), `SEARCH: search keys more than 100 deep in one another`},
		{"a1 SEARCH " + strings.Repeat("NOT ", 100) + "ALL", `SEARCH: search keys more than 100 deep in one another`},
		{"a1 SEARCH " + strings.Repeat("OR ALL ", 100) + "ALL", `SEARCH: search keys more than 100 deep in one another`},
		{"a1 SEARCH" + strings.Repeat(" ALL", 10_001), `SEARCH: more than 10000 items`},
		{"a1 SEARCH " + strings.Repeat("1,", 100_000) + "1", `SEARCH: a set of more than 100000 ranges`},
		{"a1 ESEARCH IN () ALL", `ESEARCH: an empty list of mailboxes`},
		{"a1 ESEARCH IN (personal (x)) ALL", `ESEARCH: unknown scope options`},
		{"a1 SORT DATE UTF-8 ALL", `SORT: expected a list of criteria, found "DATE UTF-8 ALL"`},
		{"a1 SORT (FROB) UTF-8 ALL", `SORT: expected a criterion of SORT, found "FROB) UTF-8 ALL"`},
		{"a1 SORT (REVERSE) UTF-8 ALL", `SORT: expected a space, found ") UTF-8 ALL"`},
		{"a1 SORT (DATE) UTF-8", `SORT: expected a space, found the end of the line`},
		{"a1 THREAD REFS", `THREAD: expected a space, found the end of the line`},
		{"a1 CANCELUPDATE", `CANCELUPDATE: expected a space, found the end of the line`},
		{"a1 REPLACE 0 a {1}", `REPLACE: expected the number of a message, found "0 a {1}"`},
		{"a1 REPLACE 1:2 a {1}", `REPLACE: expected a space, found ":2 a {1}"`},
		{"a1 APPEND", `APPEND: expected a space, found the end of the line`},

		{"a1 LOGIN {4294967295}", `LOGIN: a command of more than 1048576 octets`},
		{"a1 LOGIN {18446744073709551616}", `LOGIN: a literal of more octets than can be`},
		{"a1 NOOP " + strings.Repeat("x", 1<<20), `a command of more than 1048576 octets`},
	} {
		_, err := decode(tt.line + "\r\n")
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%.60q: %v", tt.line, err)
			continue
		}
		if syntax.Text != tt.want {
			t.Errorf("%.60q:\ngot  %s\nwant %s", tt.line, syntax.Text, tt.want)
		}
		if tag := "a1"; strings.HasPrefix(tt.line, "a1") != (syntax.Tag == tag) {
			t.Errorf("%.60q: tag %q", tt.line, syntax.Tag)
		}
	}
}

// What may become of a connection when a client sends more than is bearable.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name, input, want, code string
	}{
		{"a literal above the limit is read away", "a LOGIN {9000+}\r\n" + strings.Repeat("x", 9000) + " y\r\n",
			"LOGIN: a non-synchronising literal of more than 4096 octets", "TOOBIG"},
		{"literals count together", "a LOGIN {4000+}\r\n" + strings.Repeat("x", 4000) + " {4000+}\r\n" +
			strings.Repeat("y", 4000) + " {4000+}\r\n" + strings.Repeat("z", 4000) + "\r\n",
			"LOGIN: expected the end of the command, found something else", ""},
		{"many literals", "a ID (" + strings.Repeat("{1+}\r\na NIL ", 2000) + ")\r\n", "ID: more than 100 items", ""},
		{"a literal that cannot be", "a LOGIN {18446744073709551616+}\r\n", ErrFlood.Error(), ""},
		{"a literal that would take an hour", "a LOGIN {4294967295+}\r\n", ErrFlood.Error(), ""},
		{"a line without end", "a LOGIN " + strings.Repeat("x", 1<<20), ErrFlood.Error(), ""},
		{"a set without end", "a FETCH " + strings.Repeat("1,", 1<<19), ErrFlood.Error(), ""},
		{"zeros without end", "a LOGIN {" + strings.Repeat("0", 10_000) + "5+}\r\n", ErrFlood.Error(), ""},
		{"literals without end", "a FROB " + strings.Repeat("{9+}\r\n123456789", 1<<16), ErrFlood.Error(), ""},
		{"a long line", "a LOGIN " + strings.Repeat("x", 50_000) + "\r\n", "a command of more than 8192 octets", "TOOBIG"},
		{"a long tag", strings.Repeat("x", 200) + " NOOP\r\n", "a tag of more than 128 octets", ""},
		{"a long line with a literal", "a LOGIN " + strings.Repeat("x", 50_000) + " {3+}\r\nabc\r\n",
			"a command of more than 8192 octets", "TOOBIG"},
		{"a long line after a literal", "a LOGIN {3+}\r\nabc " + strings.Repeat("x", 50_000) + "\r\n",
			"LOGIN: a command of more than 8192 octets", "TOOBIG"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(strings.NewReader(tt.input+"zz NOOP\r\n"), func() error { return nil })
			_, err := d.Command()
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if err == ErrFlood {
				return
			}
			if code := err.(*SyntaxError).Code; code != tt.code {
				t.Errorf("code %q", code)
			}
			if c, err := d.Command(); err != nil || c.Tag != "zz" {
				t.Errorf("next command: %+v, %v", c, err)
			}
		})
	}
}
