package mailbox

import (
	"bytes"
	"slices"
)

// maxSubject bounds the octets of a subject that are looked at for sorting and threading.
const maxSubject = 4096

// baseSubject returns what is left of a decoded subject without what marks replies and forwards, and whether there was
// such a mark (RFC 5256, 2.1 and 5). Its time is linear: what one step has seen to be no reply, the next does not look
// at again.
func baseSubject(subject []byte) (base []byte, reply bool) {
	s := squeezeSpace(subject[:min(len(subject), maxSubject)])
	for {
		var trailed, led, wrapped bool
		s, trailed = cutTrailers(s)
		s, led = cutLeaders(s)
		s, wrapped = cutForward(s)
		reply = reply || trailed || led || wrapped
		if !wrapped {
			return s, reply
		}
	}
}

// squeezeSpace makes each run of white space one space (step 1).
func squeezeSpace(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for _, c := range s {
		if c == '\t' || c == '\r' || c == '\n' {
			c = ' '
		}
		if c != ' ' || len(out) == 0 || out[len(out)-1] != ' ' {
			out = append(out, c)
		}
	}
	return out
}

// cutTrailers cuts "(fwd)" and white space off the end (step 2).
func cutTrailers(s []byte) (_ []byte, found bool) {
	for {
		s = bytes.TrimRight(s, " ")
		if !hasFoldedSuffix(s, "(fwd)") {
			return s, found
		}
		s, found = s[:len(s)-len("(fwd)")], true
	}
}

// cutLeaders cuts off "Re:" and the like with the blobs before them, and blobs, as long as something is left (steps 3
// to 5).
func cutLeaders(s []byte) (_ []byte, found bool) {
	for {
		s = bytes.TrimLeft(s, " ")
		last, end := blobs(s)
		if n := replyMark(s[end:]); n > 0 {
			s, found = s[end+n:], true
			continue
		}
		if end == len(s) { // blobs only: the last one is the subject
			end = last
		}
		if end == 0 {
			return s, found
		}
		s = s[end:]
	}
}

// blobs returns where the blobs at the front of s end, and where the last of them begins.
func blobs(s []byte) (last, end int) {
	for {
		n := blob(s[end:])
		if n == 0 {
			return last, end
		}
		last, end = end, end+n
	}
}

// blob is the length of a text in square brackets, with the white space after it.
func blob(s []byte) int {
	if len(s) == 0 || s[0] != '[' {
		return 0
	}
	n := bytes.IndexAny(s[1:], "[]")
	if n < 0 || s[1+n] != ']' {
		return 0
	}
	n += 2
	return n + leadingSpace(s[n:])
}

func leadingSpace(s []byte) int { return len(s) - len(bytes.TrimLeft(s, " ")) }

// replyMark is the length of "Re:", "Fw:" or "Fwd:" at the front of s, which may have a blob before the colon.
func replyMark(s []byte) int {
	for _, mark := range [...]string{"re", "fwd", "fw"} {
		if !hasFoldedPrefix(s, mark) {
			continue
		}
		n := len(mark)
		n += leadingSpace(s[n:])
		n += blob(s[n:])
		if n < len(s) && s[n] == ':' {
			return n + 1
		}
	}
	return 0
}

// cutForward takes "[fwd:" and "]" away from round the subject (step 6).
func cutForward(s []byte) (_ []byte, found bool) {
	if !hasFoldedPrefix(s, "[fwd:") || s[len(s)-1] != ']' {
		return s, false
	}
	return s[len("[fwd:") : len(s)-1], true
}

func hasFoldedPrefix(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && bytes.EqualFold(s[:len(prefix)], []byte(prefix))
}

func hasFoldedSuffix(s []byte, suffix string) bool {
	return len(s) >= len(suffix) && bytes.EqualFold(s[len(s)-len(suffix):], []byte(suffix))
}

// subjectKey is a base subject as it is compared, and whether the subject is that of a reply or forward.
func subjectKey(f *folder, dst, subject []byte) (key []byte, reply bool) {
	base, reply := baseSubject(subject)
	return f.append(dst, slices.Clip(base)), reply
}
