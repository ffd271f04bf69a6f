package postroad_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
)

// A message that a session brings is told to a webhook from its acceptance on, and posted where its route says.
func TestWebhookAndRoute(t *testing.T) {
	type got struct{ kind, what string }
	came := make(chan got, 100)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Webhook-Signature") == "" {
			t.Error("a post is not signed")
		}
		if r.URL.Path == "/mail" {
			came <- got{"mail", string(body)}
			return
		}
		var batch struct {
			Events []struct{ Type, Recipient string }
		}
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Errorf("%q: %v", body, err)
		}
		for _, e := range batch.Events {
			came <- got{"event", e.Type + " " + e.Recipient}
		}
	}))
	defer app.Close()
	cfg := testConfig(t, "mail.example.test")
	cfg.Webhooks = []config.Webhook{{Name: "orders", URL: app.URL + "/events?key=hidden", Secret: "0123456789abcdef"}}
	cfg.Routes = []config.Route{{Domain: "app.test", Transport: config.TransportHTTP, URL: app.URL + "/mail", Secret: "0123456789abcdef", Port: 25, TLS: config.TLSOpportunistic}}
	s := embed(t, cfg, postroad.Options{}, postroad.Credential{Address: "alice@example.test", Password: "secret secret"})
	if err := submit(t, s, s.users[0], []string{"one@app.test"}, "From: alice@example.test\r\nSubject: hello\r\n\r\nbody\r\n"); err != nil {
		t.Fatal(err)
	}

	want := []got{{"event", "accepted one@app.test"}, {"event", "delivered one@app.test"}}
	var all []got
	for deadline := time.After(20 * time.Second); len(all) < 3; {
		select {
		case g := <-came:
			if g.kind == "mail" && strings.Contains(g.what, "Subject: hello") {
				g.what = ""
			}
			all = append(all, g)
		case <-deadline:
			t.Fatalf("only %v came", all)
		}
	}
	for _, g := range append(want, got{"mail", ""}) {
		if !slices.Contains(all, g) {
			t.Errorf("%v came, but not %v", all, g)
		}
	}
	for h, err := range s.Admin().Webhooks(t.Context()) {
		if err != nil || h.Name != "orders" || strings.Contains(h.URL, "hidden") || len(h.KeyID) != 8 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	answer, err := s.Admin().TestWebhook(t.Context(), "orders")
	if err != nil || answer != (control.WebhookAnswer{Code: 200, Peer: answer.Peer}) {
		t.Errorf("%+v, %v", answer, err)
	}
	if _, err := s.Admin().TestWebhook(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no webhook") {
		t.Error(err)
	}
}
