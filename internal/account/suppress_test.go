package account

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"postroad/internal/store"
)

// suppression is what keeps an account's mail from an address.
func (s *sender) suppression(id ID, to string) (found Suppression, ok bool) {
	s.Helper()
	err := s.st.View(func(r store.Reader) error {
		found, ok = Suppressed(r, id, addr(to), s.at)
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return found, ok
}

func (s *sender) suppress(x Suppression) {
	s.Helper()
	if _, err := s.AddSuppression(s.ID, x); err != nil {
		s.Fatal(err)
	}
}

func TestSuppressionsAreOfOneAccountAndEnd(t *testing.T) {
	s := newSender(t)
	s.suppress(Suppression{Address: addr("Gone@FAR.test"), Until: s.at.Add(time.Hour), Reply: "550 5.1.1 no"})
	if got, ok := s.suppression(s.ID, "gOne@far.test"); !ok || got.Reply != "550 5.1.1 no" {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := s.suppression(s.ID+1, "gone@far.test"); ok {
		t.Error("it counts for another account")
	}
	if _, ok := s.suppression(s.ID, "here@far.test"); ok {
		t.Error("it counts for another address")
	}
	s.at = s.at.Add(time.Hour)
	if _, ok := s.suppression(s.ID, "gone@far.test"); ok {
		t.Error("it does not end")
	}
	if list, err := s.Suppressions(s.ID); len(list) != 0 || err != nil {
		t.Errorf("listed: %v, %v", list, err)
	}
}

func TestSuppressionsAreRemoved(t *testing.T) {
	s := newSender(t)
	to := addr("gone@far.test")
	if err := s.RemoveSuppression(s.ID, to); !errors.Is(err, ErrNotSuppressed) {
		t.Errorf("got %v", err)
	}
	s.suppress(Suppression{Address: to})
	if err := s.RemoveSuppression(s.ID, to); err != nil {
		t.Error(err)
	}
	if _, ok := s.suppression(s.ID, "gone@far.test"); ok {
		t.Error("it is still there")
	}
	s.suppress(Suppression{Address: to})
	if err := s.Remove(s.Address, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.suppression(s.ID, "gone@far.test"); ok {
		t.Error("it outlives the account")
	}
	if _, err := s.AddSuppression(s.ID, Suppression{Address: to}); !errors.Is(err, ErrNotFound) {
		t.Errorf("for an account that is not there: %v", err)
	}
}

func TestWhatTheAdministratorSuppressesStays(t *testing.T) {
	s := newSender(t)
	s.suppress(Suppression{Address: addr("gone@far.test"), Reply: "has left", By: "uid 0"})
	s.suppress(Suppression{Address: addr("gone@far.test"), Reply: "550 no", Until: s.at.Add(time.Hour)})
	if got, _ := s.suppression(s.ID, "gone@far.test"); got.Reply != "has left" || !got.Until.IsZero() {
		t.Errorf("got %+v", got)
	}
}

func TestSuppressionsAreBounded(t *testing.T) {
	s := newSender(t)
	const extra = 50
	err := s.st.Update(func(tx store.Tx) error {
		for i := range maxSuppressions + extra {
			Suppress(tx, s.ID, Suppression{Address: addr(fmt.Sprintf("x%d@far.test", i)), Since: s.at.Add(time.Duration(i) * time.Second)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Suppressions(s.ID)
	if err != nil || len(list) > maxSuppressions || len(list) < maxSuppressions*8/10 {
		t.Errorf("%d are kept, %v", len(list), err)
	}
	if _, ok := s.suppression(s.ID, "x0@far.test"); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := s.suppression(s.ID, fmt.Sprintf("x%d@far.test", maxSuppressions+extra-1)); !ok {
		t.Error("the newest is not")
	}
}
