package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/bench"
)

func (a *app) benchCommands() *cobra.Command {
	return a.group("bench", "load a mail server, this or another, and report what it did", a.benchSMTP(), a.benchE2E(), a.benchRelay(), a.benchSink(), a.benchIMAP())
}

// targetFlags name a port of the server.
type targetFlags struct {
	bench.Target
	tls string
}

func (t *targetFlags) register(cmd *cobra.Command, prefix, about string) {
	f := cmd.Flags()
	f.StringVar(&t.Addr, prefix+"addr", "", "the server's "+about+" port, as host:port")
	f.StringVar(&t.tls, prefix+"tls", "none", "none, starttls or implicit")
	f.BoolVar(&t.Insecure, prefix+"insecure", false, "accept any certificate")
}

func (t *targetFlags) registerLogin(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.User, "user", "", "who to log in as")
	cmd.Flags().StringVar(&t.Password, "password", "", "the password; of a test account, because others can see it here")
}

func (t *targetFlags) target() (bench.Target, error) {
	mode, err := bench.ParseTLSMode(t.tls)
	if err != nil {
		return t.Target, usagef("%v", err)
	}
	if t.Addr == "" {
		return t.Target, usagef("which server? name it with --addr host:port")
	}
	t.TLS = mode
	return t.Target, nil
}

// watchFlags name what to observe on this machine.
type watchFlags struct{ bench.Watch }

func (w *watchFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntSliceVar(&w.Pids, "pid", nil, "process of the server, whose processor time is counted (repeatable)")
	f.StringSliceVar(&w.Names, "process", nil, "or the name of its processes (repeatable)")
	f.StringVar(&w.Path, "path", "", "its data directory: the flushes of that disk are counted")
	f.DurationVar(&w.Settle, "settle", 0, "wait so long for the processes to become idle")
}

// sendFlags say what is sent.
type sendFlags struct {
	targetFlags
	watchFlags
	o     bench.SMTPOptions
	sizes string
}

func (s *sendFlags) register(cmd *cobra.Command, prefix string) {
	s.targetFlags.register(cmd, prefix, "SMTP")
	s.watchFlags.register(cmd)
	f := cmd.Flags()
	f.IntVarP(&s.o.Conns, "connections", "c", 1, "connections at once")
	f.Int64VarP(&s.o.Messages, "messages", "n", 0, "stop after so many messages")
	f.DurationVarP(&s.o.Duration, "duration", "d", 0, "stop after this time (default 10s without --messages)")
	f.IntVar(&s.o.MessagesPerConn, "per-connection", 0, "messages on one connection; 0 is all")
	f.StringVar(&s.sizes, "size", "4k", "message sizes with weights, as in 1k:30,4k:50,1m:5")
	f.StringVar(&s.o.From, "from", "bench@localhost", "the sender")
	f.IntVar(&s.o.RecipientsPerMessage, "recipients", 1, "recipients of each message")
	f.BoolVar(&s.o.Pipelining, "pipelining", false, "several commands in one write, where the server offers it")
	f.BoolVar(&s.o.LMTP, "lmtp", false, "speak LMTP")
}

func (s *sendFlags) options() (o bench.SMTPOptions, err error) {
	if s.o.Target, err = s.target(); err != nil {
		return o, err
	}
	if s.o.Sizes, err = bench.ParseSizes(s.sizes); err != nil {
		return o, usagef("--size: %v", err)
	}
	if s.o.Messages == 0 && s.o.Duration == 0 {
		s.o.Duration = 10 * time.Second
	}
	s.o.Watch = s.Watch
	return s.o, nil
}

func (a *app) benchSMTP() *cobra.Command {
	var s sendFlags
	cmd := command{
		use: "smtp --addr HOST:PORT --to ADDRESS", short: "how fast mail is accepted", args: cobra.NoArgs,
		example: `postroad bench smtp --addr 127.0.0.1:2525 --to alice@example.test -c 10 -d 30s
postroad bench smtp --addr 127.0.0.1:2525 --to alice@example.test -n 10000 --size 1k:30,4k:50,1m:5`,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			o, err := s.options()
			if err != nil {
				return err
			}
			return a.bench(func(progress func(bench.Progress)) (bench.Report, error) { return bench.SMTP(ctx, o, progress) })
		},
	}.cobra()
	s.register(cmd, "")
	s.registerLogin(cmd)
	cmd.Flags().StringSliceVar(&s.o.To, "to", nil, "the recipients, in turn (repeatable)")
	return cmd
}

func (a *app) benchE2E() *cobra.Command {
	var s sendFlags
	var imap targetFlags
	var accounts []string
	var e bench.E2EOptions
	cmd := command{
		use: "e2e --addr HOST:PORT --imap-addr HOST:PORT --account ADDRESS:PASSWORD", short: "how fast mail becomes visible over IMAP", args: cobra.NoArgs,
		example: `postroad bench e2e --addr 127.0.0.1:2525 --imap-addr 127.0.0.1:2143 --account alice@example.test:secret -c 10 -d 30s`,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) (err error) {
			if e.SMTP, err = s.options(); err != nil {
				return err
			}
			if e.IMAP, err = imap.target(); err != nil {
				return err
			}
			for _, v := range accounts {
				address, password, ok := cutCredential(v)
				if !ok {
					return usagef("--account wants address:password")
				}
				e.Accounts = append(e.Accounts, bench.Account{Address: address, Password: password})
			}
			return a.bench(func(progress func(bench.Progress)) (bench.Report, error) { return bench.E2E(ctx, e, progress) })
		},
	}.cobra()
	s.register(cmd, "")
	s.registerLogin(cmd)
	imap.register(cmd, "imap-", "IMAP")
	cmd.Flags().StringArrayVar(&accounts, "account", nil, "address:password of a test account to send to and watch (repeatable)")
	cmd.Flags().DurationVar(&e.Poll, "poll", 0, "least time between two looks at a mailbox (default 20ms)")
	cmd.Flags().DurationVar(&e.Drain, "drain", 0, "wait for mail not yet visible when sending ended (default 1m)")
	return cmd
}

func (a *app) benchRelay() *cobra.Command {
	var s sendFlags
	var o bench.RelayOptions
	var to string
	var destinations int
	cmd := command{
		use: "relay --addr HOST:PORT --sink HOST:PORT --to ADDRESS -n MESSAGES", short: "how fast mail is sent on", args: cobra.NoArgs,
		example: `postroad bench relay --addr 127.0.0.1:2525 --sink 127.0.0.1:2626 --to bench@sink.test -n 3000 -c 10
postroad bench relay --addr 127.0.0.1:2525 --sink 127.0.0.1:2626 --to bench@sink.test --destinations 1000 --hosts 1000 -n 20000 -c 10`,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) (err error) {
			if s.o.Messages == 0 {
				return usagef("how many messages? say it with --messages")
			}
			if to == "" || o.Listen == "" {
				return usagef("the recipient (--to) and where the sink listens (--sink) are needed")
			}
			if o.SMTP, err = s.options(); err != nil {
				return err
			}
			o.SMTP.To = bench.Destinations(to, destinations)
			return a.bench(func(progress func(bench.Progress)) (bench.Report, error) { return bench.Relay(ctx, o, progress) })
		},
	}.cobra()
	s.register(cmd, "")
	s.registerLogin(cmd)
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "the recipient, whose domain the server sends to the sink")
	f.IntVar(&destinations, "destinations", 1, "send to so many domains below that, in turn")
	f.StringVar(&o.Listen, "sink", "", "where this command takes the mail that is sent on, as host:port")
	f.IntVar(&o.Hosts, "hosts", 1, "take it at so many addresses, upward from that one: a host for each destination")
	f.StringVar(&o.Release, "release", "", "command that lets the server send what it held; the clock of the drain starts with it")
	f.DurationVar(&o.Delay, "delay", 0, "time the sink takes for each message")
	f.DurationVar(&o.Drain, "drain", 0, "wait for the last message (default 5m)")
	return cmd
}

func (a *app) benchSink() *cobra.Command {
	var listen string
	var delay time.Duration
	var messages int64
	cmd := command{
		use: "sink --listen HOST:PORT", short: "take any mail and count it, as the next hop of a server that is measured", args: cobra.NoArgs,
		example: "postroad bench sink --listen 127.0.0.1:2626 -n 3000",
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if listen == "" {
				return usagef("where to listen? say it with --listen host:port")
			}
			return a.bench(func(progress func(bench.Progress)) (bench.Report, error) {
				return bench.RunSink(ctx, listen, delay, messages, progress)
			})
		},
	}.cobra()
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "where to take mail, as host:port")
	f.Int64VarP(&messages, "messages", "n", 0, "end after so many messages; 0 goes on until it is interrupted")
	f.DurationVar(&delay, "delay", 0, "time for each message")
	return cmd
}

func (a *app) benchIMAP() *cobra.Command {
	var t targetFlags
	var w watchFlags
	var o bench.IMAPOptions
	var sizes string
	cmd := command{
		use: "imap --addr HOST:PORT --user USER --password PASSWORD", short: "how fast a large mailbox is filled, read, searched and changed", args: cobra.NoArgs,
		example: "postroad bench imap --addr 127.0.0.1:2143 --user alice@example.test --password secret -n 10000 --idle 500",
		run: func(ctx context.Context, _ *cobra.Command, _ []string) (err error) {
			if o.Target, err = t.target(); err != nil {
				return err
			}
			if o.Sizes, err = bench.ParseSizes(sizes); err != nil {
				return usagef("--size: %v", err)
			}
			o.Watch = w.Watch
			return a.bench(func(progress func(bench.Progress)) (bench.Report, error) { return bench.IMAP(ctx, o, progress) })
		},
	}.cobra()
	t.register(cmd, "", "IMAP")
	t.registerLogin(cmd)
	w.register(cmd)
	f := cmd.Flags()
	f.Int64VarP(&o.Messages, "messages", "n", 1000, "fill the mailbox up to so many messages")
	f.StringVar(&o.Mailbox, "mailbox", "bench", "the mailbox to fill; it stays")
	f.IntVarP(&o.Conns, "connections", "c", 10, "connections that append at once, after a fifth was appended on one alone")
	f.StringVar(&sizes, "size", "4k", "message sizes with weights")
	f.IntVar(&o.Runs, "runs", 3, "repetitions of each row")
	f.IntVar(&o.Idle, "idle", 0, "connections that wait in IDLE; 0 leaves that out")
	return cmd
}

// bench runs a load and prints its report, also when it ended early.
func (a *app) bench(run func(func(bench.Progress)) (bench.Report, error)) error {
	line := a.progress()
	report, err := run(func(p bench.Progress) {
		line.show("%s: %d, %.0f/s, %s, %d errors", p.Phase, p.Done, p.Rate, p.Elapsed.Truncate(time.Second), p.Errors)
	})
	line.end()
	if err != nil && len(report.Rows) == 0 {
		return err
	}
	write := report.WriteText
	if a.json {
		write = report.WriteJSON
	}
	return errors.Join(err, write(a.out))
}
