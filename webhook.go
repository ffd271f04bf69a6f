package postroad

import (
	"fmt"

	"postroad/delivery"
	"postroad/internal/config"
	"postroad/internal/event"
	"postroad/internal/hook"
)

// webhooks are the applications that hear of events. It refuses secrets, those of HTTP routes too, that sign nothing:
// files have only been read by now.
func webhooks(cfg config.Config) ([]delivery.Webhook, error) {
	for _, r := range cfg.Routes {
		if _, err := hook.ParseKey(string(r.Secret)); err != nil {
			return nil, fmt.Errorf("the secret of the route to %s: %w", r.URL, err)
		}
	}
	var hooks []delivery.Webhook
	for _, w := range cfg.Webhooks {
		if _, err := hook.ParseKey(string(w.Secret)); err != nil {
			return nil, fmt.Errorf("the secret of webhook %s: %w", w.Name, err)
		}
		h := delivery.Webhook{Hook: event.Hook{Name: w.Name, Accounts: w.Accounts}, URL: w.URL, Secret: string(w.Secret)}
		for _, kind := range w.Events {
			h.Kinds = append(h.Kinds, event.Kind(kind))
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}
