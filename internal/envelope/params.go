package envelope

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseBody reads the value of a BODY parameter (RFC 6152, 2; RFC 3030, 3).
func ParseBody(s string) (Body, error) {
	b := Body(strings.ToUpper(s))
	if b != Body7Bit && b != Body8Bit && b != BodyBinary {
		return "", errors.New("BODY is 7BIT, 8BITMIME or BINARYMIME")
	}
	return b, nil
}

// mostByTime bounds a by-time either way: nine digits of seconds (RFC 2852, 4).
const mostByTime = 999_999_999

// ParseDeliverBy reads the value of a BY parameter (RFC 2852, 4): seconds from now, which
// may be past in mode N only, the mode, and whether relays are told of.
func ParseDeliverBy(s string, now time.Time) (DeliverBy, error) {
	seconds, mode, ok := strings.Cut(s, ";")
	n, err := parseByTime(seconds)
	if !ok || err != nil {
		return DeliverBy{}, errors.New("BY is seconds, at most nine digits of them, then ;R or ;N, then T or nothing")
	}
	by := DeliverBy{Deadline: now.Add(time.Duration(n) * time.Second)}
	mode, by.Trace = strings.CutSuffix(strings.ToUpper(mode), "T")
	switch by.Return = mode == "R"; {
	case mode != "R" && mode != "N":
		return DeliverBy{}, errors.New("the mode of BY is R or N, and T may follow")
	case by.Return && n <= 0:
		return DeliverBy{}, errors.New("BY in mode R needs a time that is still to come")
	}
	return by, nil
}

func parseByTime(s string) (int64, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "+"), "-")
	if len(s)-len(digits) > 1 || len(digits) > 9 || !isDigits(digits) {
		return 0, errors.New("not a by-time")
	}
	return strconv.ParseInt(s, 10, 64)
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Mode is how the value of a BY parameter ends: R or N, and T for a trace.
func (d DeliverBy) Mode() string {
	mode := "N"
	if d.Return {
		mode = "R"
	}
	if d.Trace {
		mode += "T"
	}
	return mode
}

// Value writes the value of a BY parameter as it stands at now: the time that a message
// has spent here is gone (RFC 2852, 4.1.3). It is empty when no bound was asked for.
func (d DeliverBy) Value(now time.Time) string {
	if d.Deadline.IsZero() {
		return ""
	}
	left := int64(d.Deadline.Sub(now) / time.Second)
	return fmt.Sprintf("%d;%s", min(max(left, -mostByTime), mostByTime), d.Mode())
}

// ParsePriority reads the value of an MT-PRIORITY parameter (RFC 6710, 7): -9 to 9.
func ParsePriority(s string) (int, error) {
	digit := strings.TrimPrefix(s, "-")
	if len(digit) != 1 || !isDigits(digit) || s == "-0" {
		return 0, errors.New("MT-PRIORITY is a number from -9 to 9")
	}
	return strconv.Atoi(s)
}

// dateTime is what package time does not look at.
var dateTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseDateTime reads a date-time of RFC 3339, 5.6, with up to nine digits of a second.
func ParseDateTime(s string) (time.Time, error) {
	s = strings.ToUpper(s)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !dateTime.MatchString(s) {
		return time.Time{}, errors.New("a time is written as in 2006-01-02T15:04:05Z")
	}
	return t.UTC(), nil
}

// ParseValidSince reads the value of an RRVS parameter into r: a time in whole seconds, and whether the message may go on
// to a host that cannot check it (RFC 7293, 3.1).
func (r *Recipient) ParseValidSince(s string) error {
	at, mode, given := strings.Cut(s, ";")
	since, err := ParseDateTime(at)
	switch {
	case err != nil:
		return fmt.Errorf("RRVS: %w", err)
	case strings.Contains(at, "."):
		return errors.New("RRVS has no parts of a second")
	case given && !strings.EqualFold(mode, "C") && !strings.EqualFold(mode, "R"):
		return errors.New("the time of RRVS may end in ;C or ;R")
	}
	r.ValidSince, r.ValidContinue = since, strings.EqualFold(mode, "C")
	return nil
}

// mostSolicit bounds what is said of solicitation (RFC 3865, 2.2).
const mostSolicit = 1000

// ParseSolicit reads solicitation class keywords with commas between (RFC 3865, 2.2).
func ParseSolicit(s string) ([]string, error) {
	words := strings.Split(s, ",")
	if len(s) > mostSolicit || slices.ContainsFunc(words, func(w string) bool { return !isSolicitWord(w) }) {
		return nil, errors.New("SOLICIT is a list of keywords as in net.example:ADV, with commas between")
	}
	return words, nil
}

func isSolicitWord(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !strings.Contains("0123456789.-_:", s[i:i+1])) {
			return false
		}
	}
	return s != ""
}
