package tlspolicy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postroad/internal/envelope"
	"postroad/internal/tlsrpt"
)

// Mode is how an MTA-STS policy is to be taken (RFC 8461, 3.2).
type Mode string

// The modes of MTA-STS policies.
const (
	Enforce Mode = "enforce" // mail goes only to hosts that the policy has, with a good certificate
	Testing Mode = "testing" // the same is looked at and reported, and not enforced
	Off     Mode = "none"    // there is no policy any more
)

// Bounds of a policy.
const (
	maxPolicy = 64 << 10        // octets of a policy file (RFC 8461, 3.3)
	maxMX     = 100             // mail hosts in it, so that the table of all policies stays small
	maxAge    = 31557600        // seconds that a policy may say it holds (RFC 8461, 3.2)
	minAge    = 5 * time.Minute // a policy that was fetched serves for as long as it is not fetched again
)

// STS is a domain's MTA-STS policy (RFC 8461).
type STS struct {
	ID      string // of the text record that told of it; empty when there was none
	Mode    Mode
	MX      []string // names, or "*.example.org": any name with one label in place of the star
	MaxAge  time.Duration
	Fetched time.Time
	Used    time.Time // when mail last asked for it; to within a day
	Tried   time.Time // when it was last asked for, with or without success
	Trouble string    // why that was without success; empty when it was not
}

// Expires is when the policy no longer holds.
func (s *STS) Expires() time.Time { return s.Fetched.Add(max(s.MaxAge, minAge)) }

// Lists reports whether the policy has a mail host (RFC 8461, 4.1). A star stands for one whole label.
func (s *STS) Lists(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(s.MX, func(pattern string) bool {
		if above, ok := strings.CutPrefix(pattern, "*."); ok {
			return parent != "" && strings.EqualFold(above, parent)
		}
		return strings.EqualFold(pattern, host)
	})
}

// report is the policy as TLS reports have it: the lines of a file that says the same.
func (s *STS) report() tlsrpt.Policy {
	lines := []string{"version: STSv1", "mode: " + string(s.Mode)}
	for _, mx := range s.MX {
		lines = append(lines, "mx: "+mx)
	}
	lines = append(lines, "max_age: "+strconv.FormatInt(int64(s.MaxAge/time.Second), 10))
	return tlsrpt.Policy{Type: tlsrpt.STS, Strings: lines, MX: s.MX}
}

var (
	// errRecord means that a text record is none of MTA-STS.
	errRecord = errors.New("not an MTA-STS record")
	// errPolicy means that a policy file is none.
	errPolicy = errors.New("not an MTA-STS policy")
)

const (
	wsp     = " \t"
	version = "STSv1"
)

// recordID returns the id in the text records at _mta-sts.DOMAIN (RFC 8461, 3.1). There must be exactly one that begins
// as it should.
func recordID(texts []string) (string, error) {
	texts = slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return !claimsVersion(s) })
	if len(texts) != 1 {
		return "", fmt.Errorf("%w: there are %d", errRecord, len(texts))
	}
	return parseRecord(texts[0])
}

// claimsVersion reports whether a text begins with the version field.
func claimsVersion(text string) bool {
	rest, ok := strings.CutPrefix(text, "v="+version)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, wsp), ";")
}

// parseRecord reads "v=STSv1; id=20200101T000000;" strictly. Of a field that comes twice the first counts.
func parseRecord(text string) (string, error) {
	fields := strings.Split(text, ";")
	if strings.Trim(fields[0], wsp) != "v="+version {
		return "", fmt.Errorf("%w: the version is missing", errRecord)
	}
	if last := len(fields) - 1; strings.Trim(fields[last], wsp) == "" {
		fields = fields[:last] // a final delimiter
	}
	id := ""
	for _, field := range fields[1:] {
		name, value, ok := strings.Cut(strings.Trim(field, wsp), "=")
		switch {
		case !ok || !isName(name) || !isValue(value):
			return "", fmt.Errorf("%w: malformed field %q", errRecord, envelope.Sanitize(field, 60))
		case name != "id" || id != "":
		case !isID(value):
			return "", fmt.Errorf("%w: malformed id", errRecord)
		default:
			id = value
		}
	}
	if id == "" {
		return "", fmt.Errorf("%w: the id is missing", errRecord)
	}
	return id, nil
}

func isID(s string) bool {
	return 0 < len(s) && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) })
}

func alphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// isName reports whether s is the name of an extension field.
func isName(s string) bool {
	if s == "" || len(s) > 32 || !alphanumeric(rune(s[0])) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("_-.", r) })
}

// isValue reports whether s is the value of a record's field: printable ASCII but ";" and "=".
func isValue(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ';' || r == '=' })
}

// ParsePolicy reads a policy file (RFC 8461, 3.2). Of fields that come twice, other than mx, the first counts; those
// that are not known are passed over.
func ParsePolicy(file string) (*STS, error) {
	s := &STS{MaxAge: -1}
	seen := map[string]bool{}
	for line := range strings.Lines(file) {
		line = strings.TrimRight(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), wsp)
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, wsp)
		if !ok || !isName(name) || !isText(value) {
			return nil, fmt.Errorf("%w: malformed line %q", errPolicy, envelope.Sanitize(line, 60))
		}
		if seen[name] && name != "mx" {
			continue
		}
		seen[name] = true
		if err := s.set(name, value); err != nil {
			return nil, err
		}
	}
	return s, s.complete(seen)
}

// isText reports whether s is the value of a policy's field: UTF-8 without control characters.
func isText(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// set takes over one field.
func (s *STS) set(name, value string) error {
	switch name {
	case "version":
		if value != version {
			return fmt.Errorf("%w: version %q", errPolicy, envelope.Sanitize(value, 60))
		}
	case "mode":
		if s.Mode = Mode(value); s.Mode != Enforce && s.Mode != Testing && s.Mode != Off {
			return fmt.Errorf("%w: mode %q", errPolicy, envelope.Sanitize(value, 60))
		}
	case "max_age":
		seconds, err := strconv.ParseUint(value, 10, 34)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("%w: max_age %q", errPolicy, envelope.Sanitize(value, 60))
		}
		s.MaxAge = time.Duration(min(seconds, maxAge)) * time.Second
	case "mx":
		return s.addMX(value)
	}
	return nil
}

func (s *STS) addMX(pattern string) error {
	name, star := strings.CutPrefix(pattern, "*.")
	domain, err := envelope.ParseDomain(strings.TrimSuffix(name, "."))
	if err != nil || domain[0] == '[' {
		return fmt.Errorf("%w: mx %q", errPolicy, envelope.Sanitize(pattern, 60))
	}
	if star {
		domain = "*." + domain
	}
	if len(s.MX) == maxMX {
		return fmt.Errorf("%w: more than %d mail hosts", errPolicy, maxMX)
	}
	s.MX = append(s.MX, domain)
	return nil
}

// complete returns what is missing.
func (s *STS) complete(seen map[string]bool) error {
	for _, name := range []string{"version", "mode", "max_age"} {
		if !seen[name] {
			return fmt.Errorf("%w: %s is missing", errPolicy, name)
		}
	}
	if s.Mode != Off && len(s.MX) == 0 {
		return fmt.Errorf("%w: mx is missing", errPolicy)
	}
	return nil
}
