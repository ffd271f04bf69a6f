package mime

import (
	"strconv"
	"strings"
	"time"
)

// ParseDate reads a Date field as RFC 5322 has it, its obsolete forms, and what else is clear: day, month and year
// in any order that leaves no doubt, a missing weekday, seconds or zone (which is then UTC), comments. It reports false for
// what is no date.
func ParseDate(v string) (time.Time, bool) {
	if len(v) > maxToken {
		v = v[:maxToken]
	}
	d := dateParser{day: -1, year: -1, zone: time.UTC}
	for _, word := range strings.FieldsFunc(joinClock(withoutComments(v)), between) {
		d.word(word)
	}
	if d.day < 1 || d.day > 31 || d.month == 0 || d.year < 0 || d.bad {
		return time.Time{}, false
	}
	t := time.Date(d.year, d.month, d.day, d.hour, d.minute, d.second, 0, d.zone)
	return t, true
}

// between reports whether r separates the words of a date.
func between(r rune) bool { return r == ',' || r < 0x80 && isSpace(byte(r)) }

// joinClock takes away the white space that RFC 5322 section 4.3 allows round the colons of a time.
func joinClock(v string) string {
	parts := strings.Split(v, ":")
	for i := range parts[1:] {
		parts[i] = strings.TrimRightFunc(parts[i], between)
		parts[i+1] = strings.TrimLeftFunc(parts[i+1], between)
	}
	return strings.Join(parts, ":")
}

// withoutComments replaces each comment by a space.
func withoutComments(v string) string {
	if strings.IndexByte(v, '(') < 0 {
		return v
	}
	var b strings.Builder
	for v != "" {
		i := strings.IndexByte(v, '(')
		if i < 0 {
			i = len(v)
		}
		b.WriteString(v[:i])
		b.WriteByte(' ')
		v = v[i:]
		if v != "" {
			v = v[commentEnd(v):]
		}
	}
	return b.String()
}

// A dateParser collects the words of a date by what they look like.
type dateParser struct {
	day, year            int
	month                time.Month
	hour, minute, second int
	timed, zoned, bad    bool
	zone                 *time.Location
}

func (d *dateParser) word(w string) {
	switch c := w[0]; {
	case strings.Count(w, "-") == 2 && c != '-':
		for part := range strings.SplitSeq(w, "-") { // 1-Jan-2001
			if part != "" {
				d.word(part)
			}
		}
	case strings.IndexByte(w, ':') > 0:
		d.clock(w)
	case (c == '+' || c == '-') && d.timed:
		d.offset(w)
	case '0' <= c && c <= '9':
		d.number(w)
	default:
		d.name(w)
	}
}

// number takes a day of the month or a year.
func (d *dateParser) number(w string) {
	n, err := strconv.Atoi(w)
	switch {
	case err != nil || len(w) > 4:
		d.bad = d.bad || d.year < 0
	case len(w) <= 2 && d.day < 0:
		d.day = n
	case d.year < 0:
		d.year = fullYear(n, len(w))
	}
}

// fullYear is RFC 5322 section 4.3.
func fullYear(n, digits int) int {
	switch {
	case digits == 2 && n < 50:
		return n + 2000
	case digits <= 3:
		return n + 1900
	}
	return n
}

// clock takes hours, minutes and perhaps seconds.
func (d *dateParser) clock(w string) {
	if i := strings.IndexAny(w, "+-"); i > 0 {
		defer d.offset(w[i:])
		w = w[:i]
	}
	hours, rest, _ := strings.Cut(w, ":")
	minutes, seconds, _ := strings.Cut(rest, ":")
	seconds, _, _ = strings.Cut(seconds, ".")
	h, err1 := strconv.Atoi(hours)
	m, err2 := strconv.Atoi(minutes)
	s, _ := strconv.Atoi(seconds)
	if err1 != nil || err2 != nil || h < 0 || h > 24 || m < 0 || m > 59 || s < 0 || s > 60 {
		d.bad = true
		return
	}
	d.hour, d.minute, d.second, d.timed = h, m, s, true
}

// offset takes a zone in figures. One that cannot be meant is UTC.
func (d *dateParser) offset(w string) {
	n, err := strconv.Atoi(strings.Replace(w[1:], ":", "", 1))
	if err != nil || n < 0 || n > 9959 || n%100 > 59 || n/100 > 23 {
		return
	}
	seconds := (n/100*60 + n%100) * 60
	if w[0] == '-' {
		seconds = -seconds
	}
	d.zoned = true
	d.zone = zone(seconds)
}

func zone(seconds int) *time.Location {
	if seconds == 0 {
		return time.UTC
	}
	return time.FixedZone("", seconds)
}

// name takes a month, a zone or a half of the day; a weekday and what is unknown mean nothing.
func (d *dateParser) name(w string) {
	w = lower(w)
	switch {
	case w == "pm" && d.timed && d.hour < 12:
		d.hour += 12
	case w == "am" && d.timed && d.hour == 12:
		d.hour = 0
	}
	if m := monthOf(w); m != 0 && d.month == 0 {
		d.month = m
		return
	}
	if hours, ok := zoneHours(w); ok && d.timed && !d.zoned {
		d.zoned, d.zone = true, zone(hours*3600)
	}
}

// monthOf recognises a month by its first three letters.
func monthOf(w string) time.Month {
	if len(w) < 3 {
		return 0
	}
	if i := strings.Index("janfebmaraprmayjunjulaugsepoctnovdec", w[:3]); i >= 0 && i%3 == 0 {
		return time.Month(i/3 + 1)
	}
	return 0
}

// zoneHours knows the zones of RFC 822 that mean something (RFC 5322 section 4.3).
func zoneHours(w string) (int, bool) {
	switch w {
	case "ut", "utc", "gmt", "z":
		return 0, true
	case "edt":
		return -4, true
	case "est", "cdt":
		return -5, true
	case "cst", "mdt":
		return -6, true
	case "mst", "pdt":
		return -7, true
	case "pst":
		return -8, true
	}
	return 0, false
}
