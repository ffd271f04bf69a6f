package mime

import (
	"iter"
	"slices"
	"strings"
)

// MessageIDs goes through the message ids in the value of a Message-ID, In-Reply-To or References field: what stands between
// angle brackets and has something before and after its last "@" (RFC 5256 calls such an id valid). Ids come without the
// brackets, without white space, which folding may have put there, and without quotes, so that two ways to write one id give
// equal strings (RFC 5256 section 2.1).
func MessageIDs(v string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			_, rest, ok := strings.Cut(v, "<")
			if !ok {
				return
			}
			end := strings.IndexAny(rest, "<>")
			if end < 0 {
				return
			}
			v = rest[end:]
			if id := bareID(rest[:end]); v[0] == '>' && id != "" && !yield(id) {
				return
			}
		}
	}
}

// bareID returns an id as MessageIDs gives it, or "" if it is not valid.
func bareID(id string) string {
	if strings.IndexByte(id, '"') >= 0 {
		id = withoutQuotes(id)
	}
	id = without(id, " \t\r\n")
	if at := strings.LastIndexByte(id, '@'); at < 1 || at == len(id)-1 {
		return ""
	}
	return id
}

// withoutQuotes takes away quotes and the backslashes that go with them.
func withoutQuotes(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		} else if s[i] == '"' {
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// firstID returns the first of the MessageIDs of v, or "".
func firstID(v string) string {
	for id := range MessageIDs(v) {
		return id
	}
	return ""
}

// references returns the ids of a References field. Of too many, the root of the thread and the nearest ones count.
func references(v string) []string {
	ids := slices.Collect(MessageIDs(v))
	if len(ids) > maxReferences {
		ids = slices.Delete(ids, 1, 1+len(ids)-maxReferences)
	}
	return slices.Clip(ids)
}
