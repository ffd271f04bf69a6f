package postroad

import (
	"context"
	"errors"
	"iter"

	"postroad/internal/certs"
	"postroad/internal/control"
)

// errNoCerts is for a data directory without a server: which certificates one would show is for its config to say.
var errNoCerts = control.Errorf(control.Unavailable, "no server runs here, and only a running one has certificates").
	WithHint("start it: postroad serve")

// Certificates lists the certificates that the running server shows.
func (a *Admin) Certificates(ctx context.Context) iter.Seq2[control.Certificate, error] {
	return func(yield func(control.Certificate, error) bool) {
		if a.c.Certs == nil {
			yield(control.Certificate{}, errNoCerts)
			return
		}
		for _, i := range a.c.Certs.List() {
			if !yield(control.Certificate(i), nil) {
				return
			}
		}
	}
}

// troubled are the certificates that somebody should look after.
func (a *Admin) troubled() (list []control.Certificate) {
	if a.c.Certs == nil {
		return nil
	}
	now := a.c.Now()
	for _, i := range a.c.Certs.List() {
		if i.Trouble == "" && !i.Until.IsZero() && !now.Before(i.Until) {
			i.Trouble = "it has expired"
		}
		if i.Trouble != "" {
			list = append(list, control.Certificate(i))
		}
	}
	return list
}

// RenewCertificate obtains another certificate for a name, and returns once it is shown.
func (a *Admin) RenewCertificate(ctx context.Context, name string) error {
	if a.c.Certs == nil {
		return errNoCerts
	}
	err := a.c.Certs.Renew(ctx, name)
	if errors.Is(err, certs.ErrNotObtained) {
		return control.Errorf(control.NotFound, "%s: %v", name, err).WithHint("see `postroad cert list`; names to obtain certificates for are in [acme] of the configuration")
	}
	if err != nil {
		return control.Errorf(control.Unavailable, "%s: %v", name, err)
	}
	return nil
}
