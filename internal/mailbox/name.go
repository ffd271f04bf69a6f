package mailbox

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of a name.
const (
	maxName   = 1000 // octets
	maxLevel  = 255  // octets of one level
	maxLevels = 20
)

const inbox = "INBOX"

// cleanName returns name as it is kept: in NFC, with INBOX in capitals as a whole name and
// as the first level (RFC 9051, 5.1). ErrName, with the reason, for what cannot be a name:
// wildcards could not be listed, control characters could not be shown.
func cleanName(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("%w: it is longer than %d octets", ErrName, maxName)
	}
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
	}
	levels := strings.Split(norm.NFC.String(name), "/")
	if len(levels) > maxLevels {
		return "", fmt.Errorf("%w: %q has more than %d levels", ErrName, name, maxLevels)
	}
	for _, l := range levels {
		if fault := levelFault(l); fault != "" {
			return "", fmt.Errorf("%w: %q has %s", ErrName, name, fault)
		}
	}
	if strings.EqualFold(levels[0], inbox) {
		levels[0] = inbox
	}
	if levels[0] == others {
		return "", fmt.Errorf("%w: %q is where the mailboxes of other accounts are seen", ErrName, others)
	}
	clean := strings.Join(levels, "/")
	if len(clean) > maxName {
		return "", fmt.Errorf("%w: it is longer than %d octets", ErrName, maxName)
	}
	return clean, nil
}

// levelFault says what keeps l from being a level, or nothing.
func levelFault(l string) string {
	switch {
	case l == "":
		return "an empty level"
	case len(l) > maxLevel:
		return fmt.Sprintf("a level longer than %d octets", maxLevel)
	case strings.ContainsAny(l, "*%"):
		return "a wildcard (* or %)"
	case strings.ContainsFunc(l, unprintable):
		return "a control character"
	}
	return ""
}

// unprintable is true of control characters and of the Unicode line and paragraph separators (RFC 5198).
func unprintable(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// lookupName is cleanName for a name that is looked up: one that is impossible is not there.
func lookupName(name string) (string, error) {
	clean, err := cleanName(name)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return clean, nil
}

// above returns the names of the mailboxes above name, the outermost first.
func above(name string) []string {
	var names []string
	for i, c := range name {
		if c == '/' {
			names = append(names, name[:i])
		}
	}
	return names
}

func notFound(name string) error { return fmt.Errorf("%w: %q", ErrNotFound, name) }
