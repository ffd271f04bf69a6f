package mailauth

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ARC is what is found of a chain of seals (RFC 8617).
type ARC struct {
	Verdict Verdict // none, pass, fail; temperror when the DNS did not answer
	Sets    int     // how many there are
	Sealers []string
	Reason  string // in words; empty when it passes
}

// arcSet is one instance: what a server found, its signature over the message, and its seal over all sets so far.
type arcSet struct {
	results *field
	message *signature
	seal    *signature
	state   Verdict // cv= of the seal
}

// chain is what a header has of ARC. With an error it is none that could be valid.
type chain struct {
	fields  int // that belong to ARC at all
	highest int // instance that any of them has
	sets    []arcSet
	marked  bool // the newest seal says that the chain has failed
	err     error
}

// last is the newest set of a chain that may be valid, or nil.
func (c *chain) last() *arcSet {
	if c.err != nil || len(c.sets) == 0 {
		return nil
	}
	return &c.sets[len(c.sets)-1]
}

// readChain collects the sets of a header (RFC 8617, 5.2, steps 1 to 3).
func readChain(fields []field) *chain {
	c := &chain{}
	sets := map[int]*arcSet{}
	for i := range fields {
		f := &fields[i]
		if !strings.HasPrefix(f.name, "arc-") {
			continue
		}
		if err := c.take(sets, f); err != nil && c.err == nil {
			c.err = err
		}
	}
	if newest := sets[c.highest]; newest != nil && newest.state == Fail {
		c.marked = true
	}
	for i := 1; i <= c.highest && c.err == nil; i++ {
		c.err = c.add(sets[i], i)
	}
	return c
}

// take reads one field into the set that it belongs to.
func (c *chain) take(sets map[int]*arcSet, f *field) error {
	var instance int
	var put func(*arcSet) error
	var err error
	switch f.name {
	case "arc-authentication-results":
		instance, err = resultsInstance(f)
		put = func(s *arcSet) error { return once(&s.results, f) }
	case "arc-message-signature":
		var sig *signature
		instance, sig, err = parseARCMessage(f)
		put = func(s *arcSet) error { return once(&s.message, sig) }
	case "arc-seal":
		var sig *signature
		var state Verdict
		instance, sig, state, err = parseSeal(f)
		put = func(s *arcSet) error { s.state = state; return once(&s.seal, sig) }
	default:
		return nil
	}
	c.fields++
	c.highest = max(c.highest, instance)
	if err != nil {
		return fmt.Errorf("%s %d: %w", f.name, instance, err)
	}
	s := sets[instance]
	if s == nil {
		s = &arcSet{}
		sets[instance] = s
	}
	if err := put(s); err != nil {
		return fmt.Errorf("%s %d: %w", f.name, instance, err)
	}
	return nil
}

func once[T any](to **T, v *T) error {
	if *to != nil {
		return errors.New("it is there twice")
	}
	*to = v
	return nil
}

// add adds the next set when it is whole and says what it must.
func (c *chain) add(s *arcSet, instance int) error {
	if s == nil || s.results == nil || s.message == nil || s.seal == nil {
		return fmt.Errorf("the set %d is not whole", instance)
	}
	want := Pass
	if instance == 1 {
		want = None
	}
	if s.state != want {
		return fmt.Errorf("the seal %d says %q of the chain before it", instance, s.state)
	}
	c.sets = append(c.sets, *s)
	return nil
}

// resultsInstance reads the tag that an ARC-Authentication-Results field begins with.
func resultsInstance(f *field) (int, error) {
	first, _, ok := strings.Cut(string(f.body()), ";")
	name, value, eq := strings.Cut(first, "=")
	if !ok || !eq || strings.Trim(name, fws) != "i" {
		return 0, errors.New("it does not begin with its instance")
	}
	return instanceOf(strings.Trim(value, fws))
}

// instanceOf reads i= (RFC 8617, 4.2.1).
func instanceOf(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSets || s[0] == '+' {
		return 0, fmt.Errorf("its instance is none of 1 to %d", maxSets)
	}
	return n, nil
}

func parseARCMessage(f *field) (int, *signature, error) {
	t, err := parseTags(string(f.body()))
	if err != nil {
		return 0, nil, err
	}
	instance, err := instanceOf(t["i"])
	if err != nil {
		return 0, nil, err
	}
	if _, ok := t["h"]; ok && t["h"] == "" {
		t["h"] = ":" // nothing is signed but the body
	}
	if _, ok := t["c"]; !ok { // so the suite of dmarc.org has it, and those who were tested with it
		t["c"] = "relaxed/relaxed"
	}
	s, err := parseMessageSignature(f, t)
	if err == nil && slices.Contains(s.names, "arc-seal") {
		err = errors.New("it signs a seal")
	}
	return instance, s, err
}

func parseSeal(f *field) (int, *signature, Verdict, error) {
	t, err := parseTags(string(f.body()))
	if err != nil {
		return 0, nil, "", err
	}
	instance, err := instanceOf(t["i"])
	if err != nil {
		return 0, nil, "", err
	}
	state := Verdict(strings.ToLower(t["cv"]))
	if _, ok := t["h"]; ok {
		return instance, nil, state, errors.New("it chooses what it seals")
	}
	s, err := parseSigner(f, t)
	return instance, s, state, err
}

// chain verifies a chain (RFC 8617, 5.2, from step 4).
func (v *verifier) chain(c *chain) ARC {
	a := ARC{Verdict: None, Sets: c.highest}
	if c.fields == 0 {
		return a
	}
	err := c.err
	if err == nil {
		err = v.seals(c)
	}
	for _, s := range c.sets {
		a.Sealers = append(a.Sealers, s.seal.Domain)
	}
	_, temporary := errors.AsType[*trouble](err)
	switch {
	case temporary && !c.marked:
		a.Verdict, a.Reason = TempError, err.Error()
	case err != nil:
		a.Verdict, a.Reason = Fail, err.Error()
	default:
		a.Verdict = Pass
	}
	return a
}

// seals verifies the newest signature over the message, and all seals, the newest first.
func (v *verifier) seals(c *chain) error {
	if err := v.message(c.last().message); err != nil {
		return fmt.Errorf("the message signature %d: %w", len(c.sets), err)
	}
	for i := len(c.sets); i > 0; i-- {
		s := c.sets[i-1].seal
		key, err := v.key(s)
		if err == nil {
			err = check(key, s, sealDigest(c.sets[:i]))
		}
		if err != nil {
			return fmt.Errorf("the seal %d: %w", i, err)
		}
	}
	return nil
}

// sealDigest is what the newest of the sets' seals is over (RFC 8617, 5.1.1): all sets, the oldest first, and itself without
// its value.
func sealDigest(sets []arcSet) []byte {
	h := sha256.New()
	var buf []byte
	for i, s := range sets {
		buf = canonical(buf[:0], s.results.raw, true)
		buf = canonical(buf, s.message.field.raw, true)
		if i < len(sets)-1 {
			buf = canonical(buf, s.seal.field.raw, true)
		} else {
			buf = canonical(buf, withoutValue(s.seal.field.raw), true)
			buf = bytes.TrimSuffix(buf, []byte("\r\n"))
		}
		h.Write(buf)
	}
	return h.Sum(nil)
}

// seal makes the next set of a chain, newest field first; nothing when the chain cannot be gone on with (RFC 8617, 5.1): it is
// full, it has said itself that it failed, or what became of it is not known. results is what was found, as
// Authentication-Results has it after the host's name.
func seal(key *SigningKey, c *chain, state Verdict, fields []field, names []string, bodyHash []byte, results string, now time.Time) ([]byte, error) {
	instance := c.highest + 1
	if instance > maxSets || c.marked || state != None && state != Pass && state != Fail {
		return nil, nil
	}
	set := arcSet{results: &field{raw: []byte("ARC-Authentication-Results: i=" + strconv.Itoa(instance) + "; " + results + "\r\n")}}

	message := newFolded("ARC-Message-Signature")
	message.tag("i", strconv.Itoa(instance))
	message.key(key)
	message.tag("c", "relaxed/relaxed")
	message.tag("t", strconv.FormatInt(now.Unix(), 10))
	message.list("h", names)
	message.long("bh", base64.StdEncoding.EncodeToString(bodyHash))
	signed, err := message.sign(key, fields, names)
	if err != nil {
		return nil, err
	}
	set.message = &signature{field: &field{raw: signed}}

	sealed := newFolded("ARC-Seal")
	sealed.tag("i", strconv.Itoa(instance))
	sealed.key(key)
	sealed.tag("t", strconv.FormatInt(now.Unix(), 10))
	sealed.tag("cv", string(state))
	sealed.word("b=")
	set.seal = &signature{field: &field{raw: sealed.buf.Bytes()}}
	sets := []arcSet{set}
	if state != Fail { // the seal of a chain that has failed is over its own set alone (RFC 8617, 5.1.2)
		sets = append(slices.Clone(c.sets), set)
	}
	last, err := sealed.end(key, sealDigest(sets))
	return slices.Concat(last, signed, set.results.raw), err
}
