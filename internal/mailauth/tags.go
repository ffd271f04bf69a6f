package mailauth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// tags are the values of a tag list by name (RFC 6376, 3.2), without the white space around them.
type tags map[string]string

const maxTags = 100

// parseTags reads a tag list. A name that stands twice makes it none.
func parseTags(s string) (tags, error) {
	t := tags{}
	for part := range strings.SplitSeq(strings.TrimSuffix(strings.TrimRight(s, fws), ";"), ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.Trim(name, fws)
		_, twice := t[name]
		switch {
		case !ok || !isTagName(name):
			return nil, errors.New("it is no list of tags")
		case twice:
			return nil, fmt.Errorf("the tag %s stands twice", name)
		case len(t) == maxTags:
			return nil, fmt.Errorf("it has more than %d tags", maxTags)
		case strings.ContainsFunc(value, notText):
			return nil, fmt.Errorf("the tag %s has an octet that none has", name)
		}
		t[name] = strings.Trim(value, fws)
	}
	return t, nil
}

// notText reports whether no value has r: only what UTF-8 needs stands above ASCII (RFC 8616, 3).
func notText(r rune) bool {
	return r < ' ' && !strings.ContainsRune(fws, r) || r == 0x7F || r == utf8.RuneError
}

// fws is what folding white space is made of.
const fws = " \t\r\n"

func isTagName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || s[i] != '_' && (s[i] < '0' || s[i] > '9')) {
			return false
		}
	}
	return s != ""
}

// without removes folding white space from within a value.
func without(s string) string {
	if !strings.ContainsAny(s, fws) {
		return s
	}
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(s)
}

// need returns the value of a tag that must be there.
func (t tags) need(name string) (string, error) {
	v := t[name]
	if v == "" {
		return "", fmt.Errorf("the tag %s is missing", name)
	}
	return v, nil
}

// octets reads a value in base64.
func (t tags) octets(name string) ([]byte, error) {
	v, err := t.need(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(without(v))
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("the tag %s is no base64", name)
	}
	return b, nil
}

// number reads a value of at most so many digits; -1 when the tag is not there.
func (t tags) number(name string, digits int) (int64, error) {
	v, ok := t[name]
	if !ok {
		return -1, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || len(v) > digits {
		return -1, fmt.Errorf("the tag %s is no number", name)
	}
	return int64(n), nil
}

// time reads a time in seconds; the zero time when the tag is not there.
func (t tags) time(name string) (time.Time, error) {
	n, err := t.number(name, 12)
	if err != nil || n < 0 {
		return time.Time{}, err
	}
	return time.Unix(n, 0), nil
}

// list reads names with colons between, in lower case.
func (t tags) list(name string) []string {
	v := without(t[name])
	if v == "" {
		return nil
	}
	return strings.Split(strings.ToLower(v), ":")
}
