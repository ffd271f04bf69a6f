package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/control"
	"postroad/internal/tlsrpt"
)

func (a *app) tlsReport() *cobra.Command {
	return command{
		use: "report FILE", short: "show a TLS report that another server has sent", args: cobra.ExactArgs(1),
		long: `Show a TLS report (RFC 8460) that another server has sent: a file of JSON, as it is or
compressed (.json.gz), or the whole mail that brought it. "-" is standard input.`,
		example: "postroad tls report google.com\\!example.org\\!1577836800\\!1577923199.json.gz\npostroad tls report -",
		complete: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		run: func(_ context.Context, c *cobra.Command, args []string) error {
			in, name := c.InOrStdin(), "standard input"
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in, name = f, args[0]
			}
			r, err := tlsrpt.Read(in)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return a.show(r, func(w io.Writer) { showTLSReport(w, r) })
		},
	}.cobra()
}

func showTLSReport(w io.Writer, r *tlsrpt.Report) {
	t := newTable(w, "from", cmp.Or(r.Organization, "-"))
	t.row("contact", cmp.Or(r.Contact, "-"))
	t.row("id", r.ID)
	t.row("about", reported(r))
	flush(t)
	for _, p := range r.Policies {
		fmt.Fprintf(w, "\n%s of %s: %s good, %d failed\n", clean(cmp.Or(string(p.Policy.Type), "-")), clean(cmp.Or(p.Policy.Domain, "-")),
			count(p.Summary.Successful, "session"), p.Summary.Failed)
		for _, line := range p.Policy.Strings {
			fmt.Fprintf(w, "    %s\n", clean(line))
		}
		showFailures(w, p.Failures)
	}
}

// reported is the time that a report is about.
func reported(r *tlsrpt.Report) string {
	const day = time.DateOnly
	if start, end := r.Range.Start.UTC(), r.Range.End.UTC(); start.Format(day) != end.Format(day) {
		return start.Format(time.RFC3339) + " to " + end.Format(time.RFC3339)
	}
	return r.Range.Start.UTC().Format(day) + " (UTC)"
}

func showFailures(w io.Writer, list []tlsrpt.Detail) {
	if len(list) == 0 {
		return
	}
	t := newTable(w, "SESSIONS", "FAILURE", "MAIL HOST", "ADDRESS", "FROM", "REASON")
	for _, d := range list {
		t.row(d.Count, d.Type, cmp.Or(d.MX, "-"), cmp.Or(d.ReceivingIP, "-"), cmp.Or(d.SendingIP, "-"), brief(cmp.Or(d.Reason, d.Information, "-"), 60))
	}
	flush(t)
}

// receivedReport is a TLS report in a mailbox.
type receivedReport struct {
	UID    uint32         `json:"uid"`
	Report *tlsrpt.Report `json:"report"`
}

func (a *app) tlsReports() *cobra.Command {
	var l control.MessageList
	cmd := command{
		use: "reports ACCOUNT [MAILBOX]", short: "list the TLS reports that have come to a mailbox", args: cobra.RangeArgs(1, 2),
		long: `List the TLS reports (RFC 8460) in a mailbox, INBOX when none is named. Mails are looked at
whose subject is that of a report; the mailbox stays as it is.`,
		example: "postroad tls reports postmaster@example.org\npostroad tls reports postmaster@example.org TLS --json", complete: a.completing(false, accountNames, mailboxNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			l.MailboxName = control.MailboxName{Account: args[0], Mailbox: mailboxArg(args)}
			heads := []string{"UID", "ABOUT", "FROM", "DOMAIN", "GOOD", "FAILED", "FAILURES"}
			return list(a, receivedReports(ctx, svc, l), heads, func(t *table, r receivedReport) {
				sum := r.Report.Sum()
				t.row(r.UID, reported(r.Report), brief(r.Report.Organization, 30), brief(domainsOf(r.Report), 40), sum.Successful, sum.Failed, brief(failuresOf(r.Report), 60))
			}, "no TLS reports")
		}),
	}.cobra()
	cmd.Flags().Uint32Var(&l.After, "after", 0, "list those after this UID")
	return cmd
}

// receivedReports yields the reports of a mailbox. What looks like one and cannot be read is passed over.
func receivedReports(ctx context.Context, svc control.Service, l control.MessageList) iter.Seq2[receivedReport, error] {
	return func(yield func(receivedReport, error) bool) {
		for m, err := range svc.Messages(ctx, l) {
			if err != nil {
				yield(receivedReport{}, err)
				return
			}
			if !strings.HasPrefix(m.Subject, "Report Domain:") || m.Size > maxReportMail {
				continue
			}
			r, err := readReport(ctx, svc, control.MessageName{Account: l.Account, Mailbox: l.Mailbox, UID: m.UID})
			switch {
			case errors.Is(err, tlsrpt.ErrNoReport): // DMARC reports have such a subject too
			case !yield(receivedReport{m.UID, r}, err) || err != nil:
				return
			}
		}
	}
}

// maxReportMail is the largest mail that tlsrpt reads.
const maxReportMail = 16 << 20

func readReport(ctx context.Context, svc control.Service, name control.MessageName) (*tlsrpt.Report, error) {
	var b bytes.Buffer
	if err := svc.ReadMessage(ctx, name, &b); err != nil {
		return nil, err
	}
	return tlsrpt.Read(&b)
}

func domainsOf(r *tlsrpt.Report) string {
	var all []string
	for _, p := range r.Policies {
		all = append(all, p.Policy.Domain)
	}
	return strings.Join(unique(all), " ")
}

func failuresOf(r *tlsrpt.Report) string {
	var all []string
	for _, p := range r.Policies {
		for _, d := range p.Failures {
			all = append(all, string(d.Type))
		}
	}
	return cmp.Or(strings.Join(unique(all), " "), "-")
}

// unique drops what stands there before.
func unique(list []string) (all []string) {
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] && s != "" {
			all = append(all, s)
		}
		seen[s] = true
	}
	return all
}

func (a *app) tlsRecord() *cobra.Command {
	to := ""
	cmd := command{
		use: "record DOMAIN", short: "print the DNS record that asks others for TLS reports", args: cobra.ExactArgs(1),
		long: `Print the DNS record by which a domain asks others for a TLS report each day (RFC 8460).
Reports then come by mail; "postroad tls reports" lists them.`,
		example: "postroad tls record example.org\npostroad tls record example.org --to tls-reports@example.org", complete: a.completing(false, domainNames),
		run: func(_ context.Context, _ *cobra.Command, args []string) error {
			record := tlsrpt.Record(args[0], cmp.Or(to, "postmaster@"+args[0]))
			return a.show(map[string]string{"record": record}, func(w io.Writer) { fmt.Fprintln(w, record) })
		},
	}.cobra()
	cmd.Flags().StringVar(&to, "to", "", "the address that reports go to (default postmaster of the domain)")
	return cmd
}
