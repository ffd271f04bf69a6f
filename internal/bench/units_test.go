package bench

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHistogramIsRightWithinItsPrecision(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		draw func() time.Duration
		n    int
	}{
		{"nothing", nil, 0},
		{"one value", func() time.Duration { return 1234567 * time.Nanosecond }, 1},
		{"microseconds", func() time.Duration { return time.Duration(random.IntN(60_000)) }, 5000},
		{"milliseconds", func() time.Duration { return time.Duration(random.IntN(80_000_000)) }, 5000},
		{"nanoseconds to minutes", func() time.Duration { return time.Duration(1) << random.IntN(40) }, 5000},
		{"two far heaps", func() time.Duration { return time.Millisecond + time.Duration(random.IntN(2))*time.Minute }, 999},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts := [3]Histogram{}
			var all []time.Duration
			for i := range c.n {
				d := c.draw()
				parts[i%3].Add(d)
				all = append(all, d)
			}
			var h Histogram
			for i := range parts {
				h.Merge(&parts[i])
			}
			slices.Sort(all)
			compare(t, &h, all)
		})
	}
}

func compare(t *testing.T, h *Histogram, sorted []time.Duration) {
	t.Helper()
	if h.Count() != int64(len(sorted)) {
		t.Errorf("count %d of %d", h.Count(), len(sorted))
	}
	if len(sorted) == 0 {
		if h.Quantile(.5) != 0 || h.Latency() != nil {
			t.Error("an empty histogram has a latency")
		}
		return
	}
	for _, q := range []float64{0, .01, .5, .9, .99, 1} {
		want := sorted[max(int(q*float64(len(sorted))+.999999)-1, 0)]
		got := h.Quantile(q)
		if diff := (got - want).Abs(); diff > want/50+time.Microsecond {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.Quantile(1) != sorted[len(sorted)-1] || h.Latency().Best != millis(sorted[0]) {
		t.Error("smallest or largest is not exact")
	}
}

func TestBucketsCoverAllWithoutGaps(t *testing.T) {
	last := -1
	for us := range 1 << 16 {
		b := bucketOf(time.Duration(us) * time.Microsecond)
		if b != last && b != last+1 {
			t.Fatalf("%d µs falls into bucket %d after %d", us, b, last)
		}
		last = b
	}
	if top := bucketOf(1 << 62); top != octaves*subBuckets-1 {
		t.Errorf("the longest duration falls into bucket %d of %d", top, octaves*subBuckets)
	}
}

func TestParseSizes(t *testing.T) {
	for _, c := range []struct {
		in    string
		sizes []int
		upTo  []uint64
		wrong string
	}{
		{in: "4k", sizes: []int{4096}, upTo: []uint64{1}},
		{in: "4096", sizes: []int{4096}, upTo: []uint64{1}},
		{in: "1k:30,4k:50,64k:15,1m:5", sizes: []int{1 << 10, 4 << 10, 64 << 10, 1 << 20}, upTo: []uint64{30, 80, 95, 100}},
		{in: " 2K , 1M:3", sizes: []int{2 << 10, 1 << 20}, upTo: []uint64{1, 4}},
		{in: "", wrong: "not a number of octets"},
		{in: "4k,", wrong: "not a number of octets"},
		{in: "k", wrong: "not a number of octets"},
		{in: "-4k", wrong: "not a number of octets"},
		{in: "4kb", wrong: "not a number of octets"},
		{in: "100", wrong: "outside"},
		{in: "2000m", wrong: "outside"},
		{in: "4k:0", wrong: "weight"},
		{in: "4k:x", wrong: "weight"},
		{in: "4k:5000000000", wrong: "weight"},
	} {
		t.Run(c.in, func(t *testing.T) {
			mix, err := ParseSizes(c.in)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("error %v, want one about %q", err, c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range mix.sizes {
				if w.size != c.sizes[i] || w.upTo != c.upTo[i] {
					t.Errorf("part %d is %+v", i, w)
				}
			}
			if len(mix.sizes) != len(c.sizes) || mix.String() != c.in {
				t.Errorf("mix is %v", mix)
			}
		})
	}
}

func TestSizesComeInTheirProportion(t *testing.T) {
	mix, err := ParseSizes("1k:30,4k:50,64k:15,1m:5")
	if err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for seq := range int64(10_000) {
		count[mix.of(seq)]++
	}
	for size, want := range map[int]int{1 << 10: 3000, 4 << 10: 5000, 64 << 10: 1500, 1 << 20: 500} {
		if got := count[size]; got < want*9/10 || got > want*11/10 {
			t.Errorf("%d of size %d, want about %d", got, size, want)
		}
	}
}

func TestMessagesAreWellFormedAndAsLongAsAsked(t *testing.T) {
	c := newComposer("a@example.test")
	for seq := range int64(600) {
		for _, size := range []int{512, 513 + int(seq), 4096, 70_000} {
			message := compose(t, c, seq, size)
			if len(message) != size {
				t.Fatalf("message %d of %d bytes has %d", seq, size, len(message))
			}
			if !bytes.HasSuffix(message, []byte("\r\n")) || strings.Count(string(message), "\r\n") != strings.Count(string(message), "\n") ||
				strings.Count(string(message), "\r\n") != strings.Count(string(message), "\r") {
				t.Fatalf("message %d of %d bytes has a bare CR or LF", seq, size)
			}
			if bytes.Contains(message, []byte("\n.")) {
				t.Fatal("a line begins with a dot and would need stuffing")
			}
		}
	}
}

func TestLongMessagesRepeatTheText(t *testing.T) {
	c := newComposer("a@example.test")
	const size = 3 * fillerLines * lineLength
	message := compose(t, c, 7, size)
	if len(message) != size {
		t.Fatalf("%d bytes of %d", len(message), size)
	}
	for line := range bytes.Lines(message) {
		if len(line) > lineLength+2 {
			t.Fatalf("a line of %d bytes", len(line))
		}
	}
}

func compose(t *testing.T, c *composer, seq int64, size int) []byte {
	t.Helper()
	d := draft{seq: seq, start: time.Now(), to: "b@example.test", subject: "bench message "}
	header := c.header(nil, &d)
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	w.Write(header)
	if err := c.writeBody(w, seq, bodyLength(size, len(header))); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	return b.Bytes()
}

func TestMessageIDsAreReadBack(t *testing.T) {
	c, other := newComposer("a@example.test"), newComposer("a@example.test")
	start := c.epoch.Add(90 * time.Second)
	header := c.header(nil, &draft{seq: 12345, start: start})
	seq, at, ok := c.parseID(header)
	if !ok || seq != 12345 || !at.Equal(start) {
		t.Errorf("read back %d, %v, %v", seq, at, ok)
	}
	if _, _, ok := other.parseID(header); ok {
		t.Error("the message of another run was taken for ours")
	}
	for _, text := range []string{"", "<", "<" + c.run, "<" + c.run + ".", "<" + c.run + ".x.1@", "<" + c.run + ".1.x@", "<" + c.run + ".1.2", "<" + c.run + ".-1.2@"} {
		if _, _, ok := c.parseID([]byte(text)); ok {
			t.Errorf("%q was read as a Message-ID", text)
		}
	}
}

func TestSplitReply(t *testing.T) {
	for _, c := range []struct {
		line string
		code int
		more bool
		text string
		ok   bool
	}{
		{"250 fine", 250, false, "fine", true},
		{"250-more", 250, true, "more", true},
		{"250", 250, false, "", true},
		{"451 4.3.0 try later", 451, false, "4.3.0 try later", true},
		{"", 0, false, "", false},
		{"25", 0, false, "", false},
		{"2x0 no", 0, false, "", false},
	} {
		code, more, text, err := splitReply([]byte(c.line))
		if (err == nil) != c.ok || c.ok && (code != c.code || more != c.more || string(text) != c.text) {
			t.Errorf("%q: %d %v %q %v", c.line, code, more, text, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 7 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 99 0 0"
	for _, c := range []struct {
		text string
		want process
		ok   bool
	}{
		{"42 (master)" + rest, process{42, 7, "master", 1100 * time.Millisecond}, true},
		{"42 (a (b) c) S)" + rest, process{42, 7, "a (b) c) S", 1100 * time.Millisecond}, true},
		{"42 (short) S 7 7", process{}, false},
		{"x (master)" + rest, process{}, false},
		{"", process{}, false},
		{")(", process{}, false},
	} {
		if got, ok := parseStat(c.text); ok != c.ok || got != c.want {
			t.Errorf("%q: %+v, %v", c.text, got, ok)
		}
	}
}

// fakeSystem writes the files a kernel would show.
func fakeSystem(t *testing.T, files map[string]string) system {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return system{filepath.Join(dir, "proc"), filepath.Join(dir, "sys")}
}

func stat(pid, parent int, name string, ticks int) string {
	return strconv.Itoa(pid) + " (" + name + ") S " + strconv.Itoa(parent) + " 0 0 0 0 0 0 0 0 0 " + strconv.Itoa(ticks) + " 0 0 0 20 0"
}

func TestProcessorTimeCountsDescendantsOnce(t *testing.T) {
	s := fakeSystem(t, map[string]string{
		"proc/1/stat":  stat(1, 0, "init", 1000),
		"proc/10/stat": stat(10, 1, "master", 1),
		"proc/11/stat": stat(11, 10, "smtpd", 10),
		"proc/12/stat": stat(12, 11, "child", 100),
		"proc/20/stat": stat(20, 1, "other", 5000),
		"proc/21/stat": stat(21, 1, "dovecot", 7),
		"proc/self":    "not a directory",
	})
	for _, c := range []struct {
		name  string
		watch Watch
		ticks int
		wrong string
	}{
		{"nothing", Watch{}, 0, ""},
		{"a process and its descendants", Watch{Pids: []int{10}}, 111, ""},
		{"an ancestor and a descendant", Watch{Pids: []int{10, 12}}, 111, ""},
		{"by name", Watch{Names: []string{"smtpd", "dovecot"}}, 117, ""},
		{"pid missing", Watch{Pids: []int{99}}, 0, "process 99"},
		{"name missing", Watch{Names: []string{"exim"}}, 0, `"exim"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cpu, err := s.cpu(c.watch)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || cpu != time.Duration(c.ticks)*tick {
				t.Errorf("%v, %v", cpu, err)
			}
		})
	}
}

func TestFlushesOfTheWholeDisk(t *testing.T) {
	s := fakeSystem(t, map[string]string{
		"proc/diskstats":                 "   8  0 sda 1 2 3 4 5 6 7 8 0 10 11 12 13 14 15 929 30\n   8  1 sda1 1 2 3 4 5 6 7 8 0 10 11 12 13 14 15 0 0\n   7 0 loop0 1 2 3\n",
		"sys/devices/sda/sda1/partition": "1",
		"sys/devices/dm-0/size":          "1",
	})
	if err := os.MkdirAll(filepath.Join(s.sys, "devices/dm-0/slaves"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../sda/sda1", filepath.Join(s.sys, "devices/dm-0/slaves/sda1")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"devices/sda", "devices/sda/sda1", "devices/dm-0"} {
		if got := wholeDisk(filepath.Join(s.sys, dir)); got != "sda" {
			t.Errorf("%s is on %q", dir, got)
		}
	}
	if n, err := s.flushes("sda"); n != 929 || err != nil {
		t.Errorf("%d flushes, %v", n, err)
	}
	for _, device := range []string{"loop0", "sdb"} {
		if _, err := s.flushes(device); err == nil {
			t.Errorf("%s has flushes", device)
		}
	}
}

func TestParseTLSMode(t *testing.T) {
	for in, want := range map[string]TLSMode{"": NoTLS, "none": NoTLS, "StartTLS": STARTTLS, "implicit": ImplicitTLS} {
		if got, err := ParseTLSMode(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ParseTLSMode("ssl"); err == nil {
		t.Error("ssl is a mode")
	}
}

func TestReportAsText(t *testing.T) {
	r := Report{Kind: "smtp", Addr: "h:25", Seconds: 2, Conditions: []string{"one", "two"},
		Rows:   []Row{{Name: "accepted", Count: 12, PerSecond: 6.25, Latency: &Latency{1, 2, 3, 4, 123.4}}},
		Counts: []Count{{"refused", 3}, {"failed", 0}},
		Usage:  &Usage{ServerPerMessage: .5, Device: "vda", FlushesPerMessage: 1},
		Errors: []ErrorCount{{"RCPT 550", 3, "RCPT was answered 550 no"}}}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"smtp h:25, 2.0 s: one, two", "6.25", "123", "accepted\n", "refused 3, failed 0", "server 0.500 ms", "vda", "RCPT 550, 3 times"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.ContainsRune(b.String(), 0) {
		t.Error("the table's own mark was left in it")
	}
}
