package mailbox

import (
	"context"
	"errors"
	"testing"

	"postroad/internal/store"
)

func limited(limit Quota) Options {
	return Options{Quota: func(store.Reader, Owner) Quota { return limit }}
}

// What adds messages asks for their number too.
func TestMessageQuota(t *testing.T) {
	h := open(t, limited(Quota{Messages: 2}))
	m, other := h.box("a"), h.box("b")
	h.append(m.ID, small)
	h.append(m.ID, small)
	d, structure := h.draft(small)
	if _, err := h.Append(m.ID, d, structure, h.now(m.ID).Created, nil, nil); !errors.Is(err, ErrOverQuota) {
		t.Errorf("append: %v", err)
	}
	if _, _, err := h.Copy(context.Background(), m.ID, nil, other.ID); !errors.Is(err, ErrOverQuota) {
		t.Errorf("copy: %v", err)
	}
	if _, _, err := h.Move(context.Background(), m.ID, nil, other.ID); err != nil {
		t.Errorf("move: %v", err)
	}
	foreign, err := h.Create(bob, "a", "")
	h.must(err)
	h.append(foreign.ID, small)
	if _, _, err := h.Move(context.Background(), other.ID, nil, foreign.ID); !errors.Is(err, ErrOverQuota) {
		t.Errorf("move to another: %v", err)
	}
}

func TestQuotaRoots(t *testing.T) {
	limits := map[Owner]Quota{ann: {4096, 10}, bob: {8192, 0}}
	h := open(t, Options{
		Quota:    func(_ store.Reader, o Owner) Quota { return limits[o] },
		SetQuota: func(o Owner, q Quota) error { limits[o] = q; return nil },
		Admin:    func(_ store.Reader, o Owner) bool { return o == carl },
	})
	h.append(h.box("a").ID, small)
	for _, c := range []struct {
		who  Owner
		name string
		root string
		want error
	}{
		{ann, "a", "ann@x.test", nil},
		{ann, "not there", "ann@x.test", nil},
		{ann, "impossible*", "", ErrNotFound},
		{bob, anns + "a", "", ErrNotFound},
	} {
		root, err := h.as(c.who).QuotaRoot(c.name)
		if root != c.root || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("root of %s: %q, %v", c.name, root, err)
		}
	}
	if _, err := h.as(bob).Quota("ann@x.test"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	h.grant("a", "bob@x.test", "l")
	_, hidden := h.as(bob).Quota("ann@x.test")
	_, absent := h.as(bob).Quota("eve@x.test")
	if !errors.Is(hidden, ErrNotFound) || !errors.Is(absent, ErrNotFound) {
		t.Errorf("who may only look: %v; of nobody: %v", hidden, absent)
	}
	h.grant("a", "anyone", "lr")
	for _, who := range []Owner{ann, bob, carl} {
		q, err := h.as(who).Quota("ANN@x.test")
		if want := (QuotaUse{"ann@x.test", Quota{4096, 10}, Quota{int64(len(small)), 1}}); q != want || err != nil {
			t.Errorf("%d sees %+v, %v", who, q, err)
		}
	}
	for who, want := range map[Owner]error{ann: ErrRights, bob: ErrRights, carl: nil} {
		if err := h.as(who).SetQuota("ann@x.test", Quota{1024, 2}); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d sets: %v", who, err)
		}
	}
	if err := h.as(carl).SetQuota("eve@x.test", Quota{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody's: %v", err)
	}
	if limits[ann] != (Quota{1024, 2}) {
		t.Errorf("the limit is %+v", limits[ann])
	}
}
