package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/control"
)

func (a *app) statusCommand() *cobra.Command {
	return command{
		use: "status", short: "tell how the server is", args: cobra.NoArgs, example: "postroad status\npostroad status --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			s, err := svc.Status(ctx)
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) { showStatus(w, s) })
		}),
	}.cobra()
}

func showStatus(w io.Writer, s control.Status) {
	t := newTable(w, "postroad", s.Version)
	if s.Running {
		t.row("running", fmt.Sprintf("for %s as %s, process %d", lasting(time.Duration(s.Uptime*float64(time.Second))), s.Hostname, s.PID))
	} else {
		t.row("running", "no")
	}
	t.row("data", s.Data)
	for _, name := range slices.Sorted(maps.Keys(s.Listeners)) {
		t.row(name, s.Listeners[name])
	}
	q, st := s.Queue, s.Store
	t.row("queue", fmt.Sprintf("%s; recipients: %d active, %d deferred, %d held", count(q.Messages, "message"), q.Active, q.Deferred, q.Hold))
	t.row("store", fmt.Sprintf("%d bodies, %s (%s to give back), index %s, %s free on the disk", st.Bodies, size(st.LiveOctets), size(st.DeadOctets), size(st.IndexOctets), size(st.FreeOctets)))
	t.row("work", fmt.Sprintf("%d updates in %d commits, %d flushes", st.Updates, st.Commits, st.Flushes))
	t.row("bans", count(s.Bans, "network")+" kept out")
	t.row("dkim", showSigning(s.DKIM))
	for _, words := range s.DKIM.Trouble {
		t.row("DKIM", words)
	}
	for _, c := range s.Troubled {
		t.row("CERTIFICATE", fmt.Sprintf("%s: %s", cmp.Or(strings.Join(c.Names, ", "), c.File), c.Trouble))
	}
	if len(s.Spent) > 0 {
		t.row("SPENT", strings.Join(s.Spent, ", ")+": a daily limit is reached (postroad account show)")
	}
	for _, d := range s.Suspended {
		t.row("SUSPENDED", d.Name+ifAny(d.Reason != "", ": "+d.Reason))
	}
	for _, d := range s.Trouble {
		t.row("TROUBLE", fmt.Sprintf("%s since %s: %s", d.Name, when(d.DeadSince), brief(cmp.Or(d.Reply, destinationState(d)), 100)))
	}
	if s.Failed != "" {
		t.row("FAILED", s.Failed+"; nothing is written until the server is restarted")
	}
	flush(t)
}

func (a *app) checkCommand() *cobra.Command {
	return command{
		use: "check", short: "read everything that is stored and say what is wrong", args: cobra.NoArgs,
		long: `Read everything that is stored, checksums included, and say what is wrong. It can
run beside the server's other work. It fails when it finds a problem.`,
		example: "postroad check\npostroad check --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			line := a.progress()
			r, err := svc.Check(ctx, line.of)
			line.end()
			if err != nil {
				return err
			}
			if err := a.show(r, func(w io.Writer) { showReport(w, r) }); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return fmt.Errorf("%s found", count(len(r.Problems), "problem"))
			}
			return nil
		}),
	}.cobra()
}

func showReport(w io.Writer, r control.CheckReport) {
	fmt.Fprintf(w, "read %d bodies of %s in %s, and %s\n", r.Bodies, size(r.Octets), count(r.Segments, "segment"), count(r.Keys, "fact"))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s: %s\n", clean(p.What), clean(p.Text))
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "no problems")
	}
}

func (a *app) compactCommand() *cobra.Command {
	return command{
		use: "compact", short: "give the space of removed messages back to the disk now", args: cobra.NoArgs, example: "postroad compact",
		long: `Give the space of removed messages back to the disk now. The server does so by
itself, after a while, for segments that are mostly dead.`,
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			var c control.Compacted
			err := a.during("compacting", func() (err error) {
				c, err = svc.Compact(ctx)
				return err
			})
			if err != nil {
				return err
			}
			return a.show(c, func(w io.Writer) { fmt.Fprintf(w, "gave back %s\n", size(c.Octets)) })
		}),
	}.cobra()
}

func (a *app) versionCommand() *cobra.Command {
	return command{
		use: "version", short: "print the version of this program", args: cobra.NoArgs, example: "postroad version",
		run: func(context.Context, *cobra.Command, []string) error {
			v := postroad.Version()
			return a.show(map[string]string{"version": v}, func(w io.Writer) { fmt.Fprintln(w, "postroad", v) })
		},
	}.cobra()
}
