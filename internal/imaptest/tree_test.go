package imaptest

import (
	"strings"
	"testing"
)

func TestResponses(t *testing.T) {
	for _, tt := range []struct{ response, want string }{
		{"* SEARCH\r\n", "* SEARCH"},
		{"* 12 FETCH (UID 7 FLAGS (\\Seen) BODY[HEADER.FIELDS (\"TO\" CC)]<0> {3}\r\na\r\n NIL)\r\n", `* 12 FETCH (UID 7 FLAGS (\Seen) BODY[HEADER.FIELDS (TO CC)]<0> "a\r\n" NIL)`},
		{"* LIST () \"/\" \"a \\\"b\\\\\"\r\n", `* LIST () "/" "a \"b\\"`},
		{"* THREAD (1 2 (3)(4))(5)\r\n", "* THREAD (1 2 (3) (4)) (5)"},
		{"a OK [UIDNEXT 4] what (ever {5}\r\n", "a OK [UIDNEXT 4] what (ever {5}"},
		{"+ \r\n", "+ "},
		{"~ BAD no\r\n", "~ BAD no"},
		{"* 1 FETCH (BINARY[1] ~{2}\r\n\x00\x01)\r\n", `* 1 FETCH (BINARY[1] "\x00\x01")`},
	} {
		got, err := NewReader(strings.NewReader(tt.response)).Response()
		words := make([]string, len(got))
		for i, v := range got {
			words[i] = v.String()
		}
		if s := strings.Join(words, " "); err != nil || s != tt.want {
			t.Errorf("%q is %s, %v", tt.response, s, err)
		}
	}
}

func TestNoResponses(t *testing.T) {
	for _, response := range []string{
		"* SEARCH \r\n", "* SEARCH  1\r\n", "* FLAGS (a\r\n", "* FLAGS a)\r\n", "* X \"a\\b\"\r\n", "* X \"a\r\n\"\r\n", "* X \"a\x00\"\r\n",
		"* X a\nb\r\n", "* X a\"b\r\n", "* X {2\r\nab\r\n", "* X {-1}\r\n\r\n", "* X a\x7f\r\n", "* X \xff\r\n",
	} {
		if got, err := NewReader(strings.NewReader(response)).Response(); err == nil {
			t.Errorf("%q is %v", response, got)
		}
	}
}
