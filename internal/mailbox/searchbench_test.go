package mailbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// benchLetters are n messages of about 4 KB with words as often as they are in a language, each with one word of its own.
func benchLetters(from, to int) (texts []string) {
	words := rand.NewZipf(rand.New(rand.NewPCG(uint64(from), 1)), 1.1, 4, 50_000)
	for i := from; i < to; i++ {
		var b strings.Builder
		fmt.Fprintf(&b, "Received: from mx%d.example.test (mx%d.example.test [192.0.2.%d])\r\n\tby mail.example.org with ESMTPS id %013x\r\n", i%50, i%50, i%250, i*7919)
		fmt.Fprintf(&b, "Message-ID: <%x.%d@example.test>\r\nFrom: Sender %d <s%d@example.test>\r\nTo: someone@example.org\r\n", i*104729, i, i%300, i%300)
		fmt.Fprintf(&b, "Subject: about number %d\r\nDate: Mon, 02 Jan 2023 15:04:05 +0000\r\n\r\nunique%dword ", i, i)
		for b.Len() < 4000 {
			w := words.Uint64()
			fmt.Fprintf(&b, "%c%s ", 'a'+rune(w%26), strings.Map(func(r rune) rune { return 'a' + (r*7+rune(w))%26 }, fmt.Sprint(w)))
			if b.Len()%70 < 5 {
				b.WriteString("\r\n")
			}
		}
		texts = append(texts, b.String()+"\r\n")
	}
	return texts
}

func BenchmarkSearch(b *testing.B) {
	const n = 10_000
	h := open(b, Options{})
	id := h.box("a").ID
	for from := 0; from < n; from += 500 {
		h.appendAll(id, benchLetters(from, from+500))
	}
	run := func(name string, c Criterion) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Search(context.Background(), id, nil, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("plain/text", text("unique1234word"))
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			h.must(h.Reindex(context.Background(), id))
		}
		st := h.indexed(id)
		b.ReportMetric(100*float64(st.Size)/float64(st.Octets), "%/text")
		b.ReportMetric(float64(st.Blocks), "blocks")
	})
	run("unseen", Criterion{HasNot: []string{`\Seen`}})
	run("size", Criterion{Larger: number(4000)})
	run("subject", Criterion{Envelope: []HeaderTest{{"Subject", "number 1234"}}})
	run("subject of all", Criterion{Envelope: []HeaderTest{{"Subject", "nu"}}})
	run("from", Criterion{Envelope: []HeaderTest{{"From", "s7@ex"}}})
	run("header", header("received", "mx7."))
	run("text", text("unique1234word"))
	run("text of none", text("no such word at all"))
	run("text of two letters", text("qx"))
	run("fuzzy", Criterion{Text: []string{"unique1234word"}, Fuzzy: true})
	sorted := func(name string, keys ...SortKey) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Sort(context.Background(), id, nil, keys, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	sorted("sort/date", SortKey{By: ByDate})
	sorted("sort/subject", SortKey{By: BySubject})
	b.Run("thread", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.Thread(context.Background(), id, nil, ThreadReferences); err != nil {
				b.Fatal(err)
			}
		}
	})
}
