package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/config"
)

// quickstartFlags are the flags of quickstart.
type quickstartFlags struct {
	listen config.Listen
	users  []string
	log    config.Log
}

func (a *app) quickstart() *cobra.Command {
	f := quickstartFlags{listen: config.Default().Listen, log: config.Log{Level: "warn", Format: "text"}}
	cmd := command{
		use: "quickstart", short: "run a server to try things out with, ready at once", args: cobra.NoArgs,
		long: `Run a server to try things out with: on this machine only, with a certificate of
its own, the domain example.test, and accounts for alice and bob. Everything is kept
in ./postroad-data, or --dir; the second start finds it again.`,
		example: `postroad quickstart
postroad quickstart --dir /tmp/mail --smtp 127.0.0.1:0 --imaps off
postroad quickstart --json --user carol@example.test:secret`,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error { return a.runQuickstart(ctx, f) },
	}.cobra()
	for _, l := range []struct {
		name  string
		addr  *config.Addr
		about string
	}{
		{"smtp", &f.listen.SMTP, "mail from other servers"}, {"submission", &f.listen.Submission, "mail from users"},
		{"submissions", &f.listen.Submissions, "mail from users, TLS from the start"}, {"imap", &f.listen.IMAP, "mailboxes"},
		{"imaps", &f.listen.IMAPS, "mailboxes, TLS from the start"}, {"lmtp", &f.listen.LMTP, "mail from a server on this machine"},
	} {
		cmd.Flags().StringVar((*string)(l.addr), l.name, string(*l.addr), l.about+`: "address:port", port 0 picks one, "off" closes it`)
	}
	cmd.Flags().StringArrayVar(&f.users, "user", nil, "address:password of an account to have, instead of alice and bob (repeatable)")
	logFlags(cmd, &f.log)
	return cmd
}

func logFlags(cmd *cobra.Command, l *config.Log) {
	cmd.Flags().StringVar(&l.Level, "log-level", l.Level, "debug, info, warn or error")
	cmd.Flags().StringVar(&l.Format, "log-format", l.Format, "text or json")
}

// config returns the server's configuration.
func (f quickstartFlags) config(dir string) (config.Config, error) {
	c := config.Default()
	c.Listen, c.Log = f.listen, f.log
	if dir != "" {
		c.DataDir = dir
	}
	if err := c.Check(); err != nil {
		return c, usagef("%v", err)
	}
	var err error
	c.DataDir, err = filepath.Abs(c.DataDir) // so that what is printed works from anywhere
	return c, err
}

// credentials reads the --user flags.
func (f quickstartFlags) credentials() ([]postroad.Credential, error) {
	var users []postroad.Credential
	for _, u := range f.users {
		address, password, ok := cutCredential(u)
		if !ok {
			return nil, usagef("--user wants address:password, as in alice@example.test:secret")
		}
		users = append(users, postroad.Credential{Address: address, Password: password})
	}
	return users, nil
}

// cutCredential splits address:password at the first colon behind the "@".
func cutCredential(s string) (address, password string, ok bool) {
	at := strings.LastIndexByte(s, '@')
	if colon := strings.IndexByte(s, ':'); at > colon {
		// The password may hold an "@": the address ends at the first colon behind the first one.
		at = strings.IndexByte(s, '@')
	}
	if at < 0 {
		return "", "", false
	}
	domain, password, ok := strings.Cut(s[at:], ":")
	return s[:at] + domain, password, ok && at > 0 && len(domain) > 1 && password != ""
}

func (a *app) runQuickstart(ctx context.Context, f quickstartFlags) error {
	if a.config != "" || a.socket != "" {
		return usagef("quickstart has no --config and no --socket; `postroad serve` runs a configuration")
	}
	cfg, err := f.config(a.dir)
	if err != nil {
		return err
	}
	users, err := f.credentials()
	if err != nil {
		return err
	}
	srv, accounts, err := postroad.OpenQuickstart(postroad.QuickstartOptions{Config: cfg, Options: postroad.Options{Log: newLog(a.err, cfg.Log)}, Users: users})
	if err != nil {
		return startError(err)
	}
	if err := a.show(readyOf(cfg, srv, accounts), func(w io.Writer) { showReady(w, cfg, srv, accounts) }); err != nil {
		return err
	}
	return serveUntilDone(ctx, a.err, srv, cfg)
}

// ready is what quickstart prints, for programs, when the server takes connections.
type ready struct {
	Data        string                `json:"data"`
	SMTP        string                `json:"smtp"`
	Submission  string                `json:"submission"`
	Submissions string                `json:"submissions"`
	IMAP        string                `json:"imap"`
	IMAPS       string                `json:"imaps"`
	LMTP        string                `json:"lmtp,omitempty"`
	Control     string                `json:"control"`
	Certificate string                `json:"certificate"`
	Accounts    []postroad.Credential `json:"accounts"`
}

func readyOf(cfg config.Config, srv *postroad.Server, accounts []postroad.Credential) ready {
	return ready{
		Data: cfg.DataDir, SMTP: srv.Addr("smtp"), Submission: srv.Addr("submission"), Submissions: srv.Addr("submissions"),
		IMAP: srv.Addr("imap"), IMAPS: srv.Addr("imaps"), LMTP: srv.Addr("lmtp"),
		Control: srv.ControlSocket(), Certificate: certificate(cfg), Accounts: accounts,
	}
}

// certificate is the file of the self-signed certificate.
func certificate(cfg config.Config) string { return filepath.Join(cfg.DataDir, "tls", "cert.pem") }

// showReady prints what a person needs to go on.
func showReady(w io.Writer, cfg config.Config, srv *postroad.Server, accounts []postroad.Credential) {
	fmt.Fprintf(w, "postroad is ready; everything is in %s\n\n", cfg.DataDir)
	fmt.Fprintln(w, "For a mail client (it will ask about the certificate, which is self-signed):")
	t := newTable(w)
	for _, l := range []struct{ name, addr string }{
		{"IMAP, TLS", srv.Addr("imaps")}, {"IMAP, STARTTLS", srv.Addr("imap")},
		{"SMTP, TLS", srv.Addr("submissions")}, {"SMTP, STARTTLS", srv.Addr("submission")},
		{"SMTP from other servers", srv.Addr("smtp")}, {"LMTP", srv.Addr("lmtp")},
	} {
		if l.addr != "" {
			t.row("  "+l.name, l.addr)
		}
	}
	for _, c := range accounts {
		t.row("  user "+c.Address, "password "+cmp.Or(c.Password, "as you changed it"))
	}
	flush(t)
	showCurl(w, certificate(cfg), srv, accounts)
	fmt.Fprintf(w, "Look after it from another shell:\n\n  %s --dir %s status\n\nStop it with Ctrl-C.\n", thisCommand(), quoted(cfg.DataDir))
}

// thisCommand is how this program is called: by its name when the shell finds it so,
// else by its path, which serves even for what `go run` has built.
func thisCommand() string {
	self, err := os.Executable()
	if err != nil {
		return "postroad"
	}
	if found, err := exec.LookPath("postroad"); err == nil && sameFile(found, self) {
		return "postroad"
	}
	return quoted(self)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// showCurl prints a line that sends a message from the first account to the last, and
// one that reads the newest of its INBOX.
func showCurl(w io.Writer, cert string, srv *postroad.Server, accounts []postroad.Credential) {
	if len(accounts) == 0 {
		return
	}
	from, to := accounts[0], accounts[len(accounts)-1]
	if url := curlURL("smtp", srv.Addr("submissions"), srv.Addr("submission")); url != "" {
		fmt.Fprintf(w, "\nSend a message:\n\n  printf '%%s\\n' %s %s 'Subject: hello' '' 'Hello' | %s --crlf --mail-from %s --mail-rcpt %s -T - %s\n",
			quoted("From: "+from.Address), quoted("To: "+to.Address), curl(cert, from), quoted(from.Address), quoted(to.Address), url)
	}
	if url := curlURL("imap", srv.Addr("imaps"), srv.Addr("imap")); url != "" {
		fmt.Fprintf(w, "\nRead the newest one:\n\n  %s '%s/INBOX;MAILINDEX=*'\n", curl(cert, to), url)
	}
	fmt.Fprintln(w)
}

// curl is the beginning of a line that logs in.
func curl(cert string, c postroad.Credential) string {
	return fmt.Sprintf("curl -sS --ssl-reqd --cacert %s --user %s", quoted(cert), quoted(c.Address+":"+c.Password))
}

// curlURL is a listener as curl wants it, with TLS from the start or by STARTTLS.
func curlURL(scheme, implicit, starttls string) string {
	switch {
	case implicit != "":
		return scheme + "s://" + implicit
	case starttls != "":
		return scheme + "://" + starttls
	}
	return ""
}

// quoted is a word for a POSIX shell.
func quoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_", r)
	}) && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
