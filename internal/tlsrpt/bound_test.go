package tlsrpt

import (
	"fmt"
	"testing"
	"time"

	"postroad/internal/store"
)

// A day has room for so many domains; those that it has are counted on.
func TestDomainsBound(t *testing.T) {
	inBubble(t, func(h *house) {
		h.r.Record(result("a.example", ""))
		time.Sleep(2 * flushEvery)
		today := dayOf(time.Now())
		if err := h.st.Update(func(tx store.Tx) error {
			var full store.Encoder
			full.Uint(maxDomains)
			tx.Put(dayKey(today), full)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			h.r.Record(result(fmt.Sprintf("b%d.example", i), ""))
			h.r.Record(result("a.example", ""))
		}
		time.Sleep(2 * flushEvery)
		h.st.View(func(r store.Reader) error {
			domains := map[string]int64{}
			for k, v := range r.Scan(append(dayKey(today), 0), dayKey(today).End()) {
				_, rest := store.TakeUint(k[len(table):])
				domain, _ := store.TakeText(rest)
				kept, err := decode(v)
				if err != nil {
					t.Fatal(err)
				}
				domains[domain] += kept.successful
			}
			if len(domains) != 1 || domains["a.example"] != 4 {
				t.Errorf("the day has %v", domains)
			}
			return nil
		})
	})
}
