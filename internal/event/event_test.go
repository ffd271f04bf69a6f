package event

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

func TestWants(t *testing.T) {
	for _, tt := range []struct {
		hook    Hook
		kind    Kind
		account string
		want    bool
	}{
		{Hook{}, Deferred, "", true},
		{Hook{Kinds: []Kind{Bounced, Delivered}}, Delivered, "", true},
		{Hook{Kinds: []Kind{Bounced}}, Delivered, "", false},
		{Hook{Accounts: []string{"a@x.test"}}, Bounced, "A@X.test", true},
		{Hook{Accounts: []string{"a@x.test"}}, Bounced, "b@x.test", false},
		{Hook{Accounts: []string{"a@x.test"}}, Bounced, "", false},
		{Hook{Accounts: []string{"@x.test"}}, Bounced, "b@X.TEST", true},
		{Hook{Accounts: []string{"@x.test"}}, Bounced, "b@y.x.test", false},
		{Hook{Accounts: []string{""}}, Bounced, "", true},
	} {
		if got := tt.hook.wants(tt.kind, tt.account); got != tt.want {
			t.Errorf("%+v of %s by %q: %v", tt.hook, tt.kind, tt.account, got)
		}
	}
}

func TestSample(t *testing.T) {
	var got struct{ Events []map[string]any }
	if err := json.Unmarshal(Sample(time.Now()), &got); err != nil || len(got.Events) != 1 || got.Events[0]["type"] != "delivered" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestNilOutbox(t *testing.T) {
	o := Open(nil, nil, nil, nil)
	o.Accepted(nil, nil, nil)
	o.Record(nil, nil, nil)
	o.Run(t.Context())
	if o != nil {
		t.Error("there is an outbox without hooks")
	}
}

// A batch is bounded in number and octets, in order, and leaves nothing behind; what is for a hook that is gone is dropped.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(storetest.MemoryDir(t), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		sp := spool.Open(st, time.Now)
		both := []Hook{{Name: "a"}, {Name: "b"}}
		o := Open(st, sp, both, slog.New(slog.DiscardHandler))
		m := &spool.Message{ID: 7, Origin: spool.Origin{Protocol: "ESMTP"}}
		to, _ := envelope.ParseAddress("x@y.test")
		for i := range 250 {
			err := st.Update(func(tx store.Tx) error {
				o.Record(tx, m, &Outcome{Kind: Deferred, Time: time.Now(), Attempts: i, Recipient: &spool.Recipient{Recipient: envelope.Recipient{To: to}},
					Reply: envelope.Reply{Text: strings.Repeat("x", 20*i)}})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		o = Open(st, sp, both[:1], slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go o.Run(ctx)
		time.Sleep(time.Minute)
		due, err := sp.Claim(1000)
		if err != nil {
			t.Fatal(err)
		}
		next := 0
		for _, d := range due {
			if d.Recipient.Transport != Transport("a") || d.Message.Size > maxOctets+8<<10 {
				t.Errorf("%+v of %d octets", d.Recipient, d.Message.Size)
			}
			for _, e := range readBatch(t, st, d.Message.ID) {
				if e.Attempts != next {
					t.Fatalf("event %d comes when %d is due", e.Attempts, next)
				}
				next++
			}
		}
		if next != 250 || len(due) < 3 || len(due) > 8 {
			t.Errorf("%d events in %d batches", next, len(due))
		}
		st.View(func(r store.Reader) error {
			for k := range r.Scan(store.NewKey(table), store.NewKey(table).End()) {
				t.Errorf("%q is left", k)
			}
			return nil
		})
	})
}

func readBatch(t *testing.T, st *store.Store, id store.ID) []text {
	t.Helper()
	body, err := st.OpenBody(id)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var got struct{ Events []text }
	if err := json.NewDecoder(body.Reader()).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got.Events
}

// Wherever the disk fails, each event ends in the outbox or in one batch, never in both and never in neither.
func TestMoveUnderFaults(t *testing.T) {
	for at := 0; ; at++ {
		tripped := false
		for _, fault := range storetest.Faults {
			synctest.Test(t, func(t *testing.T) {
				if testMoveFault(t, at, fault) {
					tripped = true
				}
			})
		}
		if !tripped {
			if at < 2 {
				t.Errorf("only %d steps were made to fail", at)
			}
			return
		}
	}
}

func testMoveFault(t *testing.T, at int, fault storetest.Fault) (tripped bool) {
	dir, disk := storetest.MemoryDir(t), storetest.NewFaultFS()
	open := func() *store.Store {
		st, err := store.Open(dir, store.Options{FS: disk})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := open()
	hooks := []Hook{{Name: "a"}}
	o := Open(st, spool.Open(st, time.Now), hooks, slog.New(slog.DiscardHandler))
	to, _ := envelope.ParseAddress("x@y.test")
	m := &spool.Message{ID: 7, Origin: spool.Origin{Protocol: "ESMTP"}}
	if err := st.Update(func(tx store.Tx) error {
		for range 3 {
			o.Record(tx, m, &Outcome{Kind: Deferred, Recipient: &spool.Recipient{Recipient: envelope.Recipient{To: to}}})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	disk.FailAt(len(disk.Ops())+at, fault, false)
	_ = o.move(t.Context())
	tripped = disk.Tripped()
	st.Close()
	if fault == storetest.Cut {
		disk.Crash(storetest.KeepNone, 1)
	}
	disk.FailAt(-1, storetest.NotDone, false)

	st = open()
	defer st.Close()
	sp := spool.Open(st, time.Now)
	o = Open(st, sp, hooks, slog.New(slog.DiscardHandler))
	if err := o.move(t.Context()); err != nil {
		t.Errorf("%s at %d: %v", fault, at, err)
	}
	due, err := sp.Claim(100)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, d := range due {
		for _, e := range readBatch(t, st, d.Message.ID) {
			ids = append(ids, e.ID)
		}
	}
	if slices.Sort(ids); len(ids) != 3 || len(slices.Compact(ids)) != 3 {
		t.Errorf("%s at %d: the spool has %q", fault, at, ids)
	}
	return tripped
}
