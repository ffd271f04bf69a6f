package delivery

import (
	"context"
	"fmt"
	"net/netip"

	"postroad/delivery/smtpc"
)

// socket is the path of the unix socket behind which the lane's store of mail is; empty for none.
func (a *attempt) socket() string {
	if a.kind() != LMTP {
		return ""
	}
	return a.lane.route.Socket
}

// trySocket sends through a unix socket. What goes through one stays on this machine: it needs no TLS.
func (a *attempt) trySocket(ctx context.Context, path string) {
	a.tried++
	conn, err := a.connectSocket(ctx, path)
	if err != nil {
		a.refusedAtDoor(err)
		return
	}
	a.send(conn, 0)
}

func (a *attempt) connectSocket(ctx context.Context, path string) (*smtpc.Conn, error) {
	dialCtx, cancel := context.WithTimeout(ctx, a.r.cfg.Limits.Connect)
	defer cancel()
	nc, err := a.r.cfg.Dial(dialCtx, netip.Addr{}, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", path, reason(err))
	}
	c := &a.r.cfg
	return smtpc.Open(ctx, nc, path, smtpc.Options{
		Hostname: c.Hostname, LMTP: true, TLS: smtpc.None, Record: &a.said, Timeouts: c.Timeouts, Now: c.Now,
		Username: a.lane.route.Username, Password: a.lane.route.Password,
	})
}
