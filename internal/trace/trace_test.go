package trace

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"postroad/internal/store"
)

func openLog(t testing.TB, l Limits) (*Log, *store.Store) {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return New(st, l), st
}

func record(t testing.TB, st *store.Store, id store.ID, events ...Event) {
	t.Helper()
	err := st.Update(func(tx store.Tx) error {
		for _, e := range events {
			Record(tx, id, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsOfOneMomentAreAllKept(t *testing.T) {
	l, st := openLog(t, Limits{})
	at := time.Now()
	record(t, st, 7, Event{Time: at, Kind: Received}, Event{Time: at, Kind: Attempt}, Event{Time: at, Kind: Delivered, UID: 3})
	record(t, st, 8, Event{Time: at, Kind: Received})
	events, err := l.Message(7)
	if err != nil || len(events) != 3 || events[0].Kind != Received || events[2].UID != 3 || events[1].ID != 7 {
		t.Errorf("got %+v %v", events, err)
	}
}

func TestEventComesBackWhole(t *testing.T) {
	l, st := openLog(t, Limits{})
	want := Event{
		ID: 9, Time: time.Unix(1e9, 123456789), Kind: Bounced, From: "<a@x.test>", To: []string{"b@y.test", "c@z.test"}, Given: []string{"d@y.test"},
		MessageID: "<1@x.test>", Size: 4096, Protocol: "ESMTPSA", Peer: "192.0.2.1 (host)", TLS: "TLS 1.3", Account: "a@x.test",
		Reply: "550 5.1.1 no", Mailbox: "a@x.test INBOX", UID: 1 << 31, By: "admin", Next: "2026-05-01T00:00:00Z", Related: "02", Dialogue: "> MAIL",
	}
	for i := range reflect.TypeFor[Event]().NumField() {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Errorf("%s is not tried", reflect.TypeFor[Event]().Field(i).Name)
		}
	}
	empty := Event{ID: 9, Time: time.Unix(1e9, 123456790)}
	record(t, st, 9, want, empty)
	got, err := l.Message(9)
	if err != nil || !reflect.DeepEqual(got, []Event{want, empty}) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Event{Kind: Received, To: []string{"a", "b"}, Given: []string{"c"}, Size: 3, UID: 4, Related: "x"}).encode())
	f.Add([]byte{1, 0, 0, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, v []byte) {
		k := eventKey(5, 6)
		e, err := decode(k, v)
		if err != nil {
			return
		}
		if again, err := decode(k, e.encode()); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v reads as %+v, %v", e, again, err)
		}
	})
}

func TestFind(t *testing.T) {
	l, st := openLog(t, Limits{})
	err := st.Update(func(tx store.Tx) error {
		for i := range 3 * page { // more than one page
			Record(tx, store.ID(i+1), Event{Time: time.Now(), Kind: Received, From: "<a@x.test>",
				To: []string{fmt.Sprintf("r%d@y.test", i%page)}, Given: []string{fmt.Sprintf("Alias%d@y.test", i%page)},
				MessageID: fmt.Sprintf("<%d@x.test>", i)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		max  int
		want []store.ID
	}{
		{"R5@y.test", 10, []store.ID{4006, 2006, 6}},
		{"<r5@y.test>", 2, []store.ID{4006, 2006}},
		{"<77@x.test>", 10, []store.ID{78}},
		{"77@x.test", 10, []store.ID{78}},
		{"a@x.test", 1, []store.ID{6000}},
		{"alias7@y.test", 1, []store.ID{4008}},
		{"nobody@x.test", 10, nil},
		{"", 10, nil},
	} {
		got, err := l.Find(context.Background(), c.what, c.max)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: got %d, want %d (%v)", c.what, got, c.want, err)
		}
	}
}

func TestPrune(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	l, st := openLog(t, Limits{Age: time.Hour, Events: 3})
	id := func(age time.Duration) store.ID { return store.ID(now.Add(-age).UnixMicro()) }
	record(t, st, id(2*time.Hour), Event{Time: now, Kind: Received}, Event{Time: now, Kind: Delivered})
	for i := range 5 {
		record(t, st, id(time.Duration(50-i)*time.Minute), Event{Time: now, Kind: Received})
	}
	if n, err := l.Prune(ctx, now); n != 4 || err != nil {
		t.Fatalf("dropped %d, want the 2 too old and the 2 too many (%v)", n, err)
	}
	if n, err := l.Prune(ctx, now); n != 0 || err != nil {
		t.Errorf("dropped %d more (%v)", n, err)
	}
	if e, _ := l.Message(id(46 * time.Minute)); len(e) != 1 {
		t.Error("the newest event is gone")
	}
	if e, _ := l.Message(id(50 * time.Minute)); len(e) != 0 {
		t.Error("the oldest event is still there")
	}
}
