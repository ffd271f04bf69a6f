package spool

import (
	"context"
	"io"
	"reflect"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// fill sets every field of a struct that v points to, so that none can be forgotten when one is added.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(v.Type().Field(i).Name + " ü")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(-3)
		case reflect.Uint8, reflect.Uint64:
			f.SetUint(2)
		case reflect.Struct:
			if f.Type() == reflect.TypeFor[time.Time]() {
				f.Set(reflect.ValueOf(time.Date(2026, 3, 4, 5, 6, 7, 8000, time.Local)))
			} else {
				fill(f)
			}
		default:
			panic("a field of a kind that fill does not know: " + v.Type().Field(i).Name)
		}
	}
}

func TestAllThatASenderAskedForSurvivesAReopen(t *testing.T) {
	f := open(t, t.TempDir())
	m := &Message{MessageID: "<m@x.test>"}
	var r Recipient
	fill(reflect.ValueOf(&m.Envelope).Elem())
	fill(reflect.ValueOf(&m.Origin).Elem())
	fill(reflect.ValueOf(&r).Elem())
	d := f.st.NewDraft()
	io.WriteString(d, "Subject: x\r\n\r\nbody\r\n")
	if err := f.s.Accept(m, []Recipient{r}, d, nil); err != nil {
		t.Fatal(err)
	}
	r.N, r.State, r.Next, r.Lane, r.Sent = 0, Deferred, m.Envelope.Release, Local, time.Time{}
	for _, when := range []string{"at once", "after a reopen"} {
		e, err := f.s.Get(m.ID)
		if err != nil || len(e.Recipients) != 1 {
			t.Fatalf("%s: %+v, %v", when, e, err)
		}
		if !reflect.DeepEqual(e.Message.Envelope, m.Envelope) || e.Message.Origin != m.Origin {
			t.Errorf("%s: got %+v, want %+v", when, e.Message, *m)
		}
		if !reflect.DeepEqual(e.Recipients[0], r) {
			t.Errorf("%s: got %+v, want %+v", when, e.Recipients[0], r)
		}
		f.close()
		f.open()
	}
	f.close()
}

// hold accepts a message that is to be released later.
func (f *fixture) hold(later time.Duration) store.ID {
	f.t.Helper()
	d := f.st.NewDraft()
	io.WriteString(d, "Subject: x\r\n\r\nbody\r\n")
	m := &Message{Envelope: envelope.Envelope{From: addr("a@x.test"), Release: f.now.Add(later)}}
	rcpts := []Recipient{{Recipient: envelope.Recipient{To: addr("b@y.test")}}, {Recipient: envelope.Recipient{To: addr("c@y.test")}}}
	if err := f.s.Accept(m, rcpts, d, nil); err != nil {
		f.t.Fatal(err)
	}
	return m.ID
}

func TestAMessageIsHeldBackUntilItsReleaseTime(t *testing.T) {
	f := open(t, t.TempDir())
	arrived := f.now
	id := f.hold(time.Hour)
	f.expect("at once", f.claims())
	c, err := f.s.Counts()
	if c.Deferred != 2 || err != nil {
		t.Errorf("counts: %+v, %v", c, err)
	}
	f.close()
	f.open() // a restart does not release it
	defer f.close()
	f.now = arrived.Add(time.Hour - time.Microsecond)
	f.expect("too early", f.claims())
	f.now = arrived.Add(time.Hour)
	due := f.claim()
	f.expect("in time", names(due), "b@y.test", "c@y.test")
	if ready := due[0].Message.Ready(); due[0].Message.ID != id || !ready.Equal(f.now) {
		t.Errorf("%s is ready at %s", due[0].Message.ID, ready)
	}
}

func TestAReleaseTimeThatIsPastHoldsNothingBack(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	f.hold(-time.Hour)
	due := f.claim()
	f.expect("at once", names(due), "b@y.test", "c@y.test")
	if m := due[0].Message; !m.Ready().Equal(m.Arrived) {
		t.Errorf("arrived %s, ready %s", m.Arrived, m.Ready())
	}
}

func TestAnAdministratorDoesNotReleaseEarly(t *testing.T) {
	ctx := context.Background()
	f := open(t, t.TempDir())
	defer f.close()
	f.hold(time.Hour)
	if n, err := f.s.Retry(ctx, Filter{}, "root"); n != 0 || err != nil {
		t.Errorf("retried: %d, %v", n, err)
	}
	f.expect("after a retry", f.claims())
	f.s.Hold(ctx, Filter{}, "root", "")
	if n, err := f.s.Resume(ctx, Filter{}, "root"); n != 2 || err != nil {
		t.Errorf("resumed: %d, %v", n, err)
	}
	f.expect("after a hold", f.claims())

	f.s.Hold(ctx, Filter{Recipient: "c@y.test"}, "root", "")
	f.now = f.now.Add(time.Hour)
	f.expect("in time", f.claims(), "b@y.test")
	f.s.Resume(ctx, Filter{}, "root")
	f.expect("released later than it asked for", f.claims(), "c@y.test")
}

func TestTheTraceTellsOfTheReleaseTime(t *testing.T) {
	f := open(t, t.TempDir())
	defer f.close()
	for _, tt := range []struct {
		id   store.ID
		want string
	}{{f.hold(time.Hour), "2026-01-02T04:04:05Z"}, {f.accept("b@y.test"), ""}} {
		events, err := trace.New(f.st, trace.Limits{}).Message(tt.id)
		if err != nil || len(events) != 1 || events[0].Next != tt.want {
			t.Errorf("%+v, %v; want %q", events, err, tt.want)
		}
	}
}
