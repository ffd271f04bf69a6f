package inflate

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// What a client says, and what zlib makes of it with one kind of flush after each line.
var said = []string{
	"a LOGIN alice@example.test secret\r\n", "b SELECT INBOX\r\n", "c NOOP\r\n", "d FETCH 1:* (FLAGS UID)\r\n", "e LOGOUT\r\n",
}

var flushes = map[string]string{
	"partial": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e50208
		a0248560571f57e710054f3f27ff085e2e8000
		4a56f0f3f70fe0e50208
		a0140537d710670f05432b2d050d371f47f76085504f174d5e2e8000
		4a0599e91f1ac2cb0510`,
	"partial, fixed codes": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e50208
		a0248560571f57e710054f3f27ff085e2e8000
		4a56f0f3f70fe0e50208
		a0140537d710670f05432b2d050d371f47f76085504f174d5e2e8000
		4a0599e91f1ac2cb0510`,
	"partial, codes only": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e50208
		a0248560571f57e710054f3f27ff085e2e8000
		4a56f0f3f70fe0e50208
		a0140537d710670f05432b2d050d371f47f76085504f174d5e2e8000
		4a55f0f177f70f0de1e50208`,
	"sync": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a0599e91f1ac2cb05000000ffff`,
	"sync, fixed codes": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a0599e91f1ac2cb05000000ffff`,
	"sync, codes only": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a55f0f177f70f0de1e502000000ffff`,
	"full": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a55f0f177f70f0de1e502000000ffff`,
	"full, fixed codes": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a55f0f177f70f0de1e502000000ffff`,
	"full, codes only": `4a54f0f177f7f45348ccc94c4e7548ad48cc2dc849d52b492d2e51284e4d2e4a2de1e502000000ffff
		4a520876f571750e51f0f473f28fe0e502000000ffff
		4a56f0f3f70fe0e502000000ffff
		4a5170730d71f65030b4d252d070f371740f5608f574d1e4e502000000ffff
		4a55f0f177f70f0de1e502000000ffff`,
}

var errDry = errors.New("the input is used up")

// a slow reader gives what it was fed, as much at a time as it likes, and an error when there is nothing.
type slow struct {
	fed  []byte
	most int
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.fed) == 0 {
		return 0, errDry
	}
	n := copy(p[:min(len(p), s.most)], s.fed)
	s.fed = s.fed[n:]
	return n, nil
}

// After each flush all that was said until then comes out, however the octets arrive.
func TestFlushes(t *testing.T) {
	for kind, pieces := range flushes {
		for most := range 5 {
			in := &slow{most: most + 1}
			z := NewReader(in)
			for i, piece := range strings.Fields(pieces) {
				b, err := hex.DecodeString(piece)
				if err != nil {
					t.Fatal(err)
				}
				in.fed = b
				got, err := io.ReadAll(z)
				if err != errDry || string(got) != said[i] {
					t.Fatalf("%s, %d at a time: line %d is %q, %v", kind, most+1, i+1, got, err)
				}
			}
		}
	}
}

// compressed is what compress/flate makes of octets, flushed here and there.
func compressed(t testing.TB, level int, b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := min(len(b), 1+rand.IntN(70_000))
		w.Write(b[:n])
		if rand.IntN(3) == 0 {
			w.Flush()
		}
		b = b[n:]
	}
	w.Close()
	return out.Bytes()
}

func samples() map[string][]byte {
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	var words bytes.Buffer
	for words.Len() < 300_000 {
		fmt.Fprintf(&words, "%d %x word ", rand.IntN(1000), rand.IntN(5))
	}
	return map[string][]byte{
		"nothing": nil, "an octet": {7}, "zeros": make([]byte, 300_000), "random": random, "words": words.Bytes(),
		"far back": append(append(words.Bytes()[:32768:32768], words.Bytes()[:300]...), random[:100]...),
	}
}

func TestAsFlate(t *testing.T) {
	for name, want := range samples() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			b := compressed(t, level, want)
			for how, r := range map[string]io.Reader{
				"at once": bytes.NewReader(b), "one at a time": iotest.OneByteReader(bytes.NewReader(b)),
				"halves": iotest.HalfReader(bytes.NewReader(b)),
			} {
				got, err := io.ReadAll(NewReader(r))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, level %d, %s: %d octets of %d, %v", name, level, how, len(got), len(want), err)
				}
			}
		}
	}
}

// A megabyte of zeros is given out as it is asked for, in little memory.
func TestBomb(t *testing.T) {
	b := compressed(t, 9, make([]byte, 10<<20))
	z := NewReader(bytes.NewReader(b))
	var one [1]byte
	if _, err := io.ReadFull(z, one[:]); err != nil {
		t.Fatal(err)
	}
	if len(z.window.ring) > minWindow {
		t.Errorf("%d octets of window after one was read", len(z.window.ring))
	}
	if n, err := io.Copy(io.Discard, z); n != 10<<20-1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if len(z.window.ring) != maxWindow {
		t.Errorf("the window has %d octets", len(z.window.ring))
	}
}

func TestCorrupt(t *testing.T) {
	for name, b := range map[string]string{
		"a block of no kind":               "\x07",
		"a stored length that is not":      "\x01\x01\x00\x00\x00x",
		"a match before the beginning":     "\x03\x02",
		"too many codes":                   "\xfd\xff\xff\xff\xff\xff\xff\xff",
		"a length again, before the first": "\x05\xc0\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x0b\x00\x00",
	} {
		z := NewReader(strings.NewReader(b))
		for range 2 {
			if _, err := io.ReadAll(z); !errors.Is(err, ErrCorrupt) && err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err := io.ReadAll(flate.NewReader(strings.NewReader(b)))
		if err == nil {
			t.Errorf("%s: compress/flate takes it", name)
		}
	}
}

// Whatever the octets, what comes out is what compress/flate gives, as far as that goes.
func FuzzReader(f *testing.F) {
	for _, pieces := range flushes {
		b, _ := hex.DecodeString(strings.ReplaceAll(pieces, " ", ""))
		f.Add(b)
	}
	for _, b := range samples() {
		f.Add(compressed(f, 6, b[:min(len(b), 5000)]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 20
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), most))
		got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(b)), most))
		if !bytes.HasPrefix(got, want) {
			t.Fatalf("%d octets, compress/flate has %d: %v, %v", len(got), len(want), err, wantErr)
		}
		if corrupt := (flate.CorruptInputError)(0); errors.As(wantErr, &corrupt) != errors.Is(err, ErrCorrupt) {
			t.Fatalf("%v, compress/flate: %v", err, wantErr)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	text := samples()["words"]
	packed := compressed(b, 6, text)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		io.Copy(io.Discard, NewReader(bytes.NewReader(packed)))
	}
}

// What comes after the end of a stream is given back, however the stream ends and wherever it is cut.
func TestEnd(t *testing.T) {
	for name, finish := range map[string]func(*flate.Writer) error{"flush": (*flate.Writer).Flush, "last block": (*flate.Writer).Close} {
		var stream bytes.Buffer
		w, err := flate.NewWriter(&stream, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, said[0])
		if err := finish(w); err != nil {
			t.Fatal(err)
		}
		stream.WriteString("what comes after, and is longer than the Reader's small buffer: " + strings.Repeat("x", 100))
		for _, from := range []io.Reader{bytes.NewReader(stream.Bytes()), iotest.OneByteReader(bytes.NewReader(stream.Bytes()))} {
			z := NewReader(from)
			for _, most := range []int{len(said[0]) - 1, 1} { // the end comes when all is read, and not before
				if n, err := io.ReadFull(z, make([]byte, most)); n != most || err != nil {
					t.Fatalf("%s: %d octets, %v", name, n, err)
				}
			}
			rest, err := z.End()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			behind, err := io.ReadAll(io.MultiReader(bytes.NewReader(rest), from))
			if err != nil || !strings.HasPrefix(string(behind), "what comes after") || !strings.HasSuffix(string(behind), "xxx") {
				t.Errorf("%s: %q comes after, %v", name, behind, err)
			}
		}
	}
}

// A stream that goes on has no end.
func TestNoEnd(t *testing.T) {
	var stream bytes.Buffer
	w, _ := flate.NewWriter(&stream, flate.BestCompression)
	io.WriteString(w, said[0]+said[1])
	w.Close()
	z := NewReader(&stream)
	if _, err := io.ReadFull(z, make([]byte, len(said[0]))); err != nil {
		t.Fatal(err)
	}
	if _, err := z.End(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the end of a stream that goes on: %v", err)
	}
}
