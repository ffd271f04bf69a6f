package postroad

import (
	"fmt"

	"postroad/internal/account"
	"postroad/internal/config"
	"postroad/internal/oauth"
)

// openLogins has people log in as the config says.
func (h *house) openLogins(cfg config.Config, o Options) error {
	if cfg.Auth.ScramSHA1 {
		h.accounts.KeepSHA1()
	}
	if !cfg.Auth.SMTPChannelBinding {
		h.logins.Unbound = []string{account.SMTP}
	}
	issuer, err := openIssuer(cfg.OAuth, o)
	if err != nil {
		return err
	}
	if issuer != nil {
		h.logins.Tokens = issuer
	}
	return nil
}

// openIssuer returns who issues tokens, or nil when nobody does.
func openIssuer(c config.OAuth, o Options) (*oauth.Issuer, error) {
	if c.IntrospectionURL == "" {
		return nil, nil
	}
	issuer, err := oauth.New(oauth.Config{
		IntrospectionURL: c.IntrospectionURL, ClientID: c.ClientID, ClientSecret: string(c.ClientSecret),
		Issuer: c.Issuer, Audience: c.Audience, Scope: c.Scope, Claim: c.UserClaim, Now: o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("oauth.introspection_url: %w", err)
	}
	return issuer, nil
}
