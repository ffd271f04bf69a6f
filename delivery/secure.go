package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"postroad/delivery/smtpc"
)

// connect opens a connection; once more and without TLS where the policy allows it
// and TLS is what failed. A password never goes that way.
func (a *attempt) connect(ctx context.Context, host string, ip netip.Addr) (*smtpc.Conn, error) {
	o := a.options()
	conn, err := a.dial(ctx, host, ip, o)
	e, ok := errors.AsType[*smtpc.Error](err)
	if ok && e.Phase == "STARTTLS" && o.TLS == smtpc.Opportunistic && o.Username == "" {
		o.TLS = smtpc.None
		return a.dial(ctx, host, ip, o)
	}
	return conn, err
}

func (a *attempt) options() smtpc.Options {
	c := &a.r.cfg
	o := smtpc.Options{Hostname: c.Hostname, Config: c.TLS, Timeouts: c.Timeouts, Now: c.Now}
	if route := a.lane.route; route != nil {
		o.TLS, o.Username, o.Password = route.TLS, route.Username, route.Password
	}
	if a.msg.Envelope.RequireTLS && o.TLS != smtpc.Implicit {
		o.TLS = smtpc.Required
	}
	return o
}

func (a *attempt) dial(ctx context.Context, host string, ip netip.Addr, o smtpc.Options) (*smtpc.Conn, error) {
	port := a.r.cfg.Port
	if !a.lane.byMX() {
		port = a.lane.route.Port
	}
	nc, err := a.dialTo(ctx, ip, port)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s (%s): %w", host, ip, reason(err))
	}
	return smtpc.Open(ctx, nc, host, o)
}

// reason drops the addresses that the net package repeats in its errors.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
