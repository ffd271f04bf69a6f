package postroad_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"postroad"
	"postroad/internal/config"
)

// Mail that waits for a domain with a route of its own is tried at once when anybody asks for it, and for any other when
// a proxy that the config names does.
func TestMailThatWaitsIsAskedFor(t *testing.T) {
	cfg := testConfig(t, "mx.one.test")
	cfg.Routes = []config.Route{{Domain: "routed.test", Transport: config.TransportSMTP, Host: "192.0.2.9", Port: 25, TLS: config.TLSNone}}
	tried := make(chan bool)
	ann := postroad.Credential{Address: "ann@one.test", Password: "secret of ann"}
	one := embed(t, cfg, postroad.Options{Dial: func(ctx context.Context, _ netip.Addr, _, _ string) (net.Conn, error) {
		select {
		case tried <- true:
		case <-ctx.Done():
		}
		return nil, errors.New("nobody is there")
	}}, ann)
	if err := submit(t, one, ann, []string{"x@routed.test"}, "From: ann@one.test\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	<-tried
	waits := func() bool {
		status, err := one.Admin().Status(t.Context())
		return err == nil && status.Queue.Deferred == 1
	}
	for !waits() {
		runtime.Gosched()
	}
	c := dialSMTP(t, one.Addr("smtp"))
	c.command(t, "ETRN elsewhere.test", "459 4.7.1 ")
	c.command(t, "XCLIENT ADDR=203.0.113.9", "550 5.7.0 ")
	c.command(t, "ETRN routed.test", "253 2.0.0 1 ")
	<-tried
}

// A peer that the config names may speak for others.
func TestNamedPeersSpeakForOthers(t *testing.T) {
	cfg := testConfig(t, "mx.one.test")
	cfg.Trust.XCLIENT = []config.Network{config.Network(netip.MustParsePrefix("127.0.0.1/32"))}
	one := embed(t, cfg, postroad.Options{})
	c := dialSMTP(t, one.Addr("smtp"))
	c.command(t, "ETRN elsewhere.test", "251 2.0.0 ")
	c.command(t, "XCLIENT ADDR=203.0.113.9", "220 ")
}
