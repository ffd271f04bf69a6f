package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/control"
)

func (a *app) probeCommand() *cobra.Command {
	var from string
	var dialogue bool
	cmd := command{
		use: "probe DOMAIN|ADDRESS", short: "find out what sending mail somewhere would meet, without sending any", args: cobra.ExactArgs(1),
		long: `Find out what sending mail somewhere would meet, without sending any: the MX records and
whether DNSSEC has validated them, each mail host with its addresses, what DANE, MTA-STS
and our memory ask of its TLS, the certificate that it shows and whether that is good, and
what it offers; then what would become of mail. It is the code of delivery that asks and
dials, as far as the first command that would name a sender. A running server probes from
where it is; without one the command does, and opens no data directory.`,
		complete: a.completing(false, domainNames),
		example:  "postroad probe example.net\npostroad probe bob@example.net --from ann@example.org --dialogue",
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			var p control.Probe
			err := a.during("asking and dialling", func() (err error) {
				p, err = a.probe(ctx, control.ProbeQuery{To: args[0], From: from})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { showProbe(w, p, dialogue) })
		},
	}.cobra()
	cmd.Flags().StringVar(&from, "from", "", "who would send the mail, where a route depends on that")
	cmd.Flags().BoolVar(&dialogue, "dialogue", false, "show what was said to each host")
	return cmd
}

// probe asks the running server, or does it here.
func (a *app) probe(ctx context.Context, q control.ProbeQuery) (control.Probe, error) {
	cfg, err := a.directory()
	if err != nil {
		return control.Probe{}, err
	}
	svc, closer, err := a.dial(cmp.Or(a.socket, control.SocketPath(cfg.DataDir)))
	if errors.Is(err, control.NotFound) && a.socket == "" {
		return postroad.Probe(ctx, cfg, q)
	}
	if err != nil {
		return control.Probe{}, err
	}
	defer closer.Close()
	return svc.Probe(control.WithCaller(ctx, os.Getuid()), q)
}

func showProbe(w io.Writer, p control.Probe, dialogue bool) {
	t := newTable(w, "domain", p.Domain)
	for _, f := range [][2]string{
		{"route", p.Route}, {"alias of", p.Alias}, {"mx", mxWords(p)},
		{"mta-sts", cmp.Or(p.MTASTS, ifAny(p.Route == "", "none"))}, {"tls memory", p.Memory},
		{"tls reports", strings.Join(p.Reports, " ")},
	} {
		if f[1] != "" {
			t.row(f[0], f[1])
		}
	}
	flush(t)
	for _, h := range p.Hosts {
		showProbeHost(w, h, dialogue)
	}
	fmt.Fprintln(w)
	wrapped(w, "", clean(p.Verdict))
}

func mxWords(p control.Probe) string {
	validated := ifAny(p.DNSSEC, " (validated by DNSSEC)")
	switch {
	case p.Route != "" && len(p.MX) == 0:
		return ""
	case len(p.MX) == 0:
		return "none" + validated
	}
	var list []string
	for _, mx := range p.MX {
		list = append(list, fmt.Sprintf("%d %s", mx.Preference, mx.Host))
	}
	return strings.Join(list, ", ") + validated
}

func showProbeHost(w io.Writer, h control.ProbeHost, dialogue bool) {
	fmt.Fprintf(w, "\nhost %s%s\n", clean(h.Name), ifAny(h.DNSSEC, " (addresses validated by DNSSEC)"))
	for _, words := range []string{
		ifAny(h.Trouble != "", "not tried: "+h.Trouble),
		ifAny(h.Trouble == "" && len(h.Addresses) > 0, "TLS: "+h.Needs+ifAny(h.Because != "", ", by "+h.Because)),
		ifAny(h.RequireTLS != "", "REQUIRETLS: "+h.RequireTLS),
	} {
		if words != "" {
			wrapped(w, "  ", clean(words))
		}
	}
	for _, record := range h.TLSA {
		wrapped(w, "  ", "TLSA "+clean(record))
	}
	for _, c := range h.Calls {
		showProbeCall(w, c, dialogue)
	}
}

func showProbeCall(w io.Writer, c control.ProbeCall, dialogue bool) {
	fmt.Fprintf(w, "  %s\n", clean(cmp.Or(c.Address, "the socket")))
	words := []string{
		ifAny(c.Trouble != "", "cannot be used: "+c.Trouble),
		ifAny(c.Name != "", "calls itself "+c.Name),
		ifAny(c.TLS != "", c.TLS+ifAny(c.Verified, ", certificate good")+ifAny(c.Unverified != "", ", certificate not good: "+c.Unverified)),
		ifAny(c.TLS == "" && c.Trouble == "" && c.Address != "", "no TLS"),
	}
	for i, cert := range c.Certificates {
		words = append(words, certificateWords(i, cert))
	}
	words = append(words, ifAny(len(c.Extensions) > 0, "offers "+strings.Join(c.Extensions, ", ")))
	for _, line := range words {
		if line != "" {
			wrapped(w, "    ", clean(line))
		}
	}
	if dialogue {
		for _, line := range dialogueLines(c.Dialogue) {
			fmt.Fprintf(w, "      %s\n", clean(line))
		}
	}
}

// certificateWords tell of the first certificate all, and of those above it where they come from.
func certificateWords(i int, c control.ProbeCertificate) string {
	if i > 0 {
		return fmt.Sprintf("above it: issued by %s, until %s", c.Issuer, when(c.Until))
	}
	age := ifAny(c.Until.Before(time.Now()), " (EXPIRED)")
	return fmt.Sprintf("certificate for %s, issued by %s, until %s%s, SHA-256 %s, of its key %s",
		strings.Join(c.Names, ", "), c.Issuer, when(c.Until), age, c.SHA256, c.Key)
}
