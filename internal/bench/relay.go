package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// RelayOptions describe a run of Relay. The server must send mail for all of SMTP.To to Listen.
type RelayOptions struct {
	SMTP    SMTPOptions // how the server is loaded; Messages is needed
	Listen  string      // where the sink listens, host:port
	Hosts   int         // it listens at so many addresses, upward from that of Listen, at the same port; 0 is one
	Release string      // a command for the shell that lets the server send what it held; empty when it holds nothing
	Delay   time.Duration
	Drain   time.Duration // how long to wait for the last message; 0 is five minutes
}

// Destinations are so many domains, one recipient in each: name@dN.domain.
func Destinations(address string, n int) []string {
	local, domain, _ := strings.Cut(address, "@")
	if n <= 1 {
		return []string{address}
	}
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("%s@d%d.%s", local, i, domain)
	}
	return to
}

// Relay loads a server that sends on to a sink, and reports how fast the mail came there: from the release on where the
// server held it, else from the first message on. progress may be nil.
func Relay(ctx context.Context, o RelayOptions, progress func(Progress)) (Report, error) {
	o.SMTP = o.SMTP.withDefaults()
	if err := o.check(); err != nil {
		return Report{}, err
	}
	all, err := listenMany(o.Listen, o.Hosts)
	if err != nil {
		return Report{}, fmt.Errorf("the sink: %w", err)
	}
	sink := NewSink(o.Delay)
	serving, stop := context.WithCancel(ctx)
	var ended sync.WaitGroup
	for _, l := range all {
		ended.Go(func() { _ = sink.Serve(serving, l) })
	}
	defer func() { stop(); ended.Wait() }()
	m := new(meter)
	defer m.show(progress)()
	return o.run(ctx, sink, m)
}

// listenMany listens at n addresses, one after the other, at the same port.
func listenMany(first string, n int) ([]net.Listener, error) {
	l, err := net.Listen("tcp", first)
	if err != nil {
		return nil, err
	}
	all := []net.Listener{l}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	for len(all) < n {
		at = netip.AddrPortFrom(at.Addr().Next(), at.Port())
		if l, err = net.Listen("tcp", at.String()); err != nil {
			for _, l := range all {
				_ = l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func (o *RelayOptions) check() error {
	if o.SMTP.Messages <= 0 {
		return errors.New("say how many messages to relay")
	}
	return o.SMTP.check()
}

func (o *RelayOptions) run(ctx context.Context, sink *Sink, m *meter) (Report, error) {
	r := newReport("relay", o.SMTP.Addr, o.SMTP.conditions())
	s := newSending(&o.SMTP, m)
	err := s.run(ctx)
	s.report(&r)
	if err != nil {
		return r, cancelled(ctx, err)
	}
	began, before := time.Time{}, int64(0)
	watch, err := o.SMTP.Watch.start()
	if err == nil && o.Release != "" {
		before = sink.Messages()
		began = time.Now()
		err = o.release(ctx)
	}
	if err == nil {
		err = o.await(ctx, sink, s.sum.accepted, m)
	}
	use := watch.stop(ctx)
	name := "relayed"
	if o.Release != "" {
		name = "drained"
	}
	sink.report(&r, name, began, before)
	use.perMessage(&r, sink.Messages()-before)
	return r, cancelled(ctx, err)
}

func (o *RelayOptions) release(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "sh", "-c", o.Release).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the command that releases the mail: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// await waits for what was accepted to come to the sink.
func (o *RelayOptions) await(ctx context.Context, sink *Sink, n int64, m *meter) error {
	m.begin("drain", n)
	most := o.Drain
	if most <= 0 {
		most = 5 * time.Minute
	}
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	enough := make(chan error, 1)
	go func() { enough <- sink.Wait(waiting, n) }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-enough:
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%d of %d messages came within %s", sink.Messages(), n, most)
			}
			return err
		case <-tick.C:
			m.done.Store(sink.Messages())
		}
	}
}

// RunSink takes mail at an address until ctx is done or, if messages is not 0, so many have come, and reports it.
func RunSink(ctx context.Context, listen string, delay time.Duration, messages int64, progress func(Progress)) (Report, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return Report{}, err
	}
	sink := NewSink(delay)
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- sink.Serve(serving, l) }()
	m := new(meter)
	hide := m.show(progress)
	m.begin("sink", messages)
	if messages > 0 {
		err = sink.Wait(ctx, messages)
	} else {
		<-ctx.Done()
	}
	hide()
	stop()
	err = errors.Join(err, <-ended)
	r := newReport("sink", l.Addr().String(), nil)
	sink.report(&r, "taken", time.Time{}, 0)
	if ctx.Err() != nil {
		err = nil
	}
	return r, err
}
