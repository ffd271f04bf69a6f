package delivery

import (
	"flag"
	"fmt"
	"io"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

var bulkBacklog = flag.Int("bulk", 5000, "how many bulk messages TestUrgentOvertakesBacklog queues")

// TestUrgentOvertakesBacklog has every conversation busy with bulk mail when an urgent message comes for a destination with
// a backlog, and one for another. With -bulk=100000 -v it prints how many bulk messages leave before them.
func TestUrgentOvertakesBacklog(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		slow := func(phase string) {
			if phase == "DATA" {
				time.Sleep(time.Second)
			}
		}
		const others = 60
		peers := []*peer{f.site("y.test", public(1), &peer{})}
		for i := range others {
			peers = append(peers, f.site(fmt.Sprintf("d%d.test", i), public(10+i), &peer{}))
		}
		quick := f.site("z.test", public(2), &peer{})
		for _, p := range peers {
			p.before = slow
		}
		count := func() (n int) {
			for _, p := range peers {
				n += len(p.got())
			}
			return n
		}
		fillBulk(t, f, *bulkBacklog, func(i int) string { // half of it to one
			if i%2 == 0 {
				return "y.test"
			}
			return fmt.Sprintf("d%d.test", i/2%others)
		})
		f.start()
		f.pass(10500 * time.Millisecond)
		f.priority(4, "urgent@y.test")
		f.priority(4, "urgent@z.test")
		before, within := count(), map[*peer]int{}
		for range 100 {
			for _, p := range []*peer{peers[0], quick} {
				if got := p.got(); within[p] == 0 && len(got) > 0 && has(got, "urgent") {
					within[p] = count() - before
				}
			}
			if len(within) == 2 {
				break
			}
			f.pass(100 * time.Millisecond)
		}
		busy, n, m := f.runnerBusy(), within[peers[0]], within[quick]
		t.Logf("of %d bulk messages, %d left before, and then %d before the urgent one to the same destination, %d before the other; %d attempts are under way",
			*bulkBacklog, before, n, m, busy)
		if len(within) != 2 || n > 2*(Limits{}.WithDefaults()).Attempts || m > (Limits{}.WithDefaults()).Attempts {
			t.Errorf("%d and %d bulk messages went before the urgent ones", n, m)
		}
	})
}

func has(got []mailed, local string) bool {
	for _, m := range got {
		for _, to := range m.to {
			if a, err := envelope.ParseAddress(to); err == nil && a.Local == local {
				return true
			}
		}
	}
	return false
}

// fillBulk queues n messages of low priority, many in one transaction.
func fillBulk(t *testing.T, f *fixture, n int, domain func(int) string) {
	for done := 0; done < n; done += 500 {
		drafts := make([]*store.Draft, min(500, n-done))
		for i := range drafts {
			drafts[i] = f.st.NewDraft()
			_, _ = io.WriteString(drafts[i], letter)
		}
		err := f.st.Update(func(tx store.Tx) error {
			for i, d := range drafts {
				m := &spool.Message{ID: d.ID(), Size: d.Size(), Envelope: envelope.Envelope{From: path("<alice@a.test>"), Priority: -4}}
				to := envelope.Recipient{To: envelope.Address{Local: "bulk", Domain: domain(done + i)}}
				if err := f.sp.Add(tx, m, []spool.Recipient{{Recipient: to}}, trace.Received); err != nil {
					return err
				}
			}
			return nil
		}, drafts...)
		if err != nil {
			t.Fatal(err)
		}
	}
}
