package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"postroad/internal/control"
)

func TestMain(m *testing.M) {
	// A process with the race detector sleeps a second before it exits; scripts start hundreds.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	testscript.Main(m, map[string]func(){"postroad": func() { os.Exit(run()) }})
}

// The scripts in testdata/admin run twice: on a data directory that a server has
// open, and on one without a server. The output is the same. Each has a copy of the
// same directory, with accounts for alice and bob, as $DATA.
func TestAdminWithServer(t *testing.T) {
	made := makeData(t)
	testscript.Run(t, testscript.Params{Dir: "testdata/admin", Cmds: commands, Setup: func(env *testscript.Env) error {
		if err := copyData(env, made); err != nil {
			return err
		}
		return serveData(env)
	}})
}

func TestAdminWithoutServer(t *testing.T) {
	made := makeData(t)
	testscript.Run(t, testscript.Params{Dir: "testdata/admin", Cmds: commands, Setup: func(env *testscript.Env) error {
		return copyData(env, made)
	}})
}

// makeData returns a data directory with two accounts. Making it once saves the
// time that hashing passwords takes.
func makeData(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "data")
	p, err := launch(".", append([]string{"quickstart", "--json", "--dir", dir,
		"--user", "alice@example.test:secret", "--user", "bob@example.test:secret"}, freePorts...), func(string, string) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyData(env *testscript.Env, from string) error {
	to := filepath.Join(env.WorkDir, "data")
	env.Setenv("DATA", to)
	env.Setenv("RUNNING", "false")
	env.Setenv("GORACE", os.Getenv("GORACE"))
	return os.CopyFS(to, os.DirFS(from))
}

// serveData runs a server without listeners on $DATA.
func serveData(env *testscript.Env) error {
	env.Setenv("RUNNING", "true")
	file := filepath.Join(env.WorkDir, "serve.toml")
	text := "[listen]\nsmtp = \"off\"\nsubmission = \"off\"\nsubmissions = \"off\"\nimap = \"off\"\nimaps = \"off\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	p := &process{cmd: exec.Command("postroad", "serve", "--config", file, "--dir", env.Getenv("DATA"))}
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	env.Defer(p.kill)
	for until := time.Now().Add(patienceOfScripts); ; time.Sleep(10 * time.Millisecond) {
		c, err := control.Dial(control.SocketPath(env.Getenv("DATA")))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(until) {
			p.kill()
			return fmt.Errorf("the server does not answer: %w\n%s", err, &p.log)
		}
	}
}

// The scripts in testdata/server start servers themselves.
func TestServer(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/server", Cmds: commands, Setup: withSlot})
}

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"shape":      shape,
	"smtp":       sendMail,
	"submit":     submit,
	"imap":       imapCommands,
	"start":      start,
	"stop":       stop,
	"waitfor":    waitFor,
	"connect":    connect,
	"setid":      setID,
	"eventually": eventually,
	"keyfile":    keyFile,
}

// freePorts close what a script does not need and put the rest on free ports.
var freePorts = []string{"--smtp", "127.0.0.1:0", "--submission", "127.0.0.1:0", "--submissions", "off", "--imap", "127.0.0.1:0", "--imaps", "off"}

// process is a server that runs.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// launch starts the command in dir and sets variables from the line that it prints.
func launch(dir string, args []string, setenv func(key, value string)) (*process, error) {
	p := &process{cmd: exec.Command("postroad", args...)}
	p.cmd.Dir, p.cmd.Stderr = dir, &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var r ready
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("not ready: %w\n%s", err, &p.log)
	}
	for key, value := range map[string]string{
		"DATA": r.Data, "SMTP": r.SMTP, "SUBMISSION": r.Submission, "SUBMISSIONS": r.Submissions, "IMAP": r.IMAP, "IMAPS": r.IMAPS,
		"SOCKET": r.Control, "CERT": r.Certificate, "READY": string(line),
	} {
		setenv(key, value)
	}
	return p, nil
}

func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the server did not stop cleanly: %w\n%s", err, &p.log)
	}
	return nil
}

// slot holds the server that a script has started.
type slot struct{ *process }

func withSlot(env *testscript.Env) error {
	env.Values[slot{}] = &slot{}
	env.Setenv("GORACE", os.Getenv("GORACE"))
	return nil
}

// start ARGS runs `postroad ARGS` until the script ends, or stop.
func start(ts *testscript.TestScript, _ bool, args []string) {
	p, err := launch(ts.MkAbs("."), append(args, freePorts...), ts.Setenv)
	ts.Check(err)
	ts.Defer(p.kill)
	ts.Value(slot{}).(*slot).process = p
}

// stop ends it with SIGTERM; it must end cleanly.
func stop(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(ts.Value(slot{}).(*slot).stop()) }

// shape FILE compares the kinds of values in the last output, a line of JSON, with
// those that FILE holds: {"name": "string", "sizes": ["number"]}.
func shape(ts *testscript.TestScript, neg bool, args []string) {
	want := shapeOf(ts, ts.ReadFile(args[0]))
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if got := shapeOf(ts, kinds(ts, line)); got != want {
			ts.Fatalf("the shape is\n%s\nnot\n%s", got, want)
		}
	}
}

func shapeOf(ts *testscript.TestScript, text string) string {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("%v in %q", err, text)
	}
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}

// kinds replaces each value by its kind, and a list by its first element.
func kinds(ts *testscript.TestScript, text string) string {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("%v in %q", err, text)
	}
	b, _ := json.Marshal(kind(v))
	return string(b)
}

func kind(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = kind(v[k])
		}
		return v
	case []any:
		if len(v) > 1 {
			v = v[:1]
		}
		for i := range v {
			v[i] = kind(v[i])
		}
		return v
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return "time"
		}
		return "string"
	case float64:
		return "number"
	case bool:
		return "bool"
	}
	return "null"
}

// smtp FILE FROM TO... sends a message to $SMTP.
func sendMail(ts *testscript.TestScript, neg bool, args []string) {
	err := send(ts.Getenv("SMTP"), ts.ReadFile(args[0]), args[1], args[2:])
	if neg != (err != nil) {
		ts.Fatalf("smtp: %v", err)
	}
}

func send(addr, text, from string, to []string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := c.Rcpt(rcpt); err != nil {
			return err
		}
	}
	return sendContent(c, text)
}

// sendContent sends a message to the recipients that c has, and takes its leave.
func sendContent(c *smtp.Client, text string) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// submit USER PASSWORD FILE MAIL RCPT... logs in at $SUBMISSION under TLS and sends a message with whole MAIL and RCPT
// commands; a refusal fails.
func submit(ts *testscript.TestScript, neg bool, args []string) {
	err := submitMail(ts.Getenv("SUBMISSION"), smtp.PlainAuth("", args[0], args[1], "127.0.0.1"), ts.ReadFile(args[2]), args[3:])
	if neg != (err != nil) {
		ts.Fatalf("submit: %v", err)
	}
	if err != nil {
		fmt.Fprintln(ts.Stdout(), err)
	}
}

func submitMail(addr string, auth smtp.Auth, text string, commands []string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: "127.0.0.1", InsecureSkipVerify: true}); err != nil {
		return err
	}
	if err := c.Auth(auth); err != nil {
		return err
	}
	for _, command := range commands {
		if err := c.Text.PrintfLine("%s", command); err != nil {
			return err
		}
		if _, _, err := c.Text.ReadResponse(25); err != nil {
			return err
		}
	}
	return sendContent(c, text)
}

// imap USER PASSWORD COMMAND... gives commands at $IMAP and logs the answers; one
// that is not OK fails.
func imapCommands(ts *testscript.TestScript, neg bool, args []string) {
	conn, err := net.Dial("tcp", ts.Getenv("IMAP"))
	ts.Check(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		ts.Fatalf("imap: %v", err)
	}
	failed := false
	for i, command := range append([]string{fmt.Sprintf("LOGIN %q %q", args[0], args[1])}, args[2:]...) {
		tag := fmt.Sprintf("t%d", i)
		fmt.Fprintf(conn, "%s %s\r\n", tag, command)
		for {
			line, err := in.ReadString('\n')
			ts.Check(err)
			fmt.Fprint(ts.Stdout(), line)
			if rest, ok := strings.CutPrefix(line, tag+" "); ok {
				failed = failed || !strings.HasPrefix(rest, "OK")
				break
			}
		}
	}
	if failed != neg {
		ts.Fatalf("imap: failed is %v", failed)
	}
}

// connect sets the addresses of the server that postroad.toml describes.
func connect(ts *testscript.TestScript, _ bool, _ []string) {
	var s control.Status
	poll(ts, "the server's status", func() bool {
		ts.Check(ts.Exec("postroad", "status", "--json"))
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &s))
		return s.Running
	})
	for name, addr := range s.Listeners {
		ts.Setenv(strings.ToUpper(name), addr)
	}
}

// setid sets $ID to that of the first message in the queue.
func setID(ts *testscript.TestScript, _ bool, _ []string) {
	var e control.QueueEntry
	ts.Check(ts.Exec("postroad", "queue", "list", "--json"))
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Check(json.Unmarshal([]byte(line), &e))
	ts.Setenv("ID", e.ID)
}

// patienceOfScripts bounds waiting for what a server does on its own.
const patienceOfScripts = 30 * time.Second

// waitfor FILE returns when the file exists.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, args[0], func() bool { _, err := os.Stat(ts.MkAbs(args[0])); return err == nil })
}

// eventually TEXT COMMAND ARGS... runs the command until its output holds the text.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	var out []byte
	poll(ts, strings.Join(args, " "), func() bool {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		out, _ = cmd.CombinedOutput()
		return bytes.Contains(out, []byte(args[0])) != neg
	})
	ts.Logf("%s", out)
}

func poll(ts *testscript.TestScript, what string, ok func() bool) {
	for until := time.Now().Add(patienceOfScripts); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			ts.Fatalf("waited in vain for %s", what)
		}
	}
}

// stalled opens an SMTP session that is in the middle of a message.
func stalled(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Mail("carol@example.net"), c.Rcpt("alice@example.test")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Data(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	var addr string
	p, err := launch(t.TempDir(), append([]string{"quickstart", "--json", "--dir", "data", "--user", "alice@example.test:secret"}, freePorts...), func(key, value string) {
		if key == "SMTP" {
			addr = value
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	stalled(t, addr)
	began := time.Now()
	p.cmd.Process.Signal(syscall.SIGTERM)
	for { // until the server has seen it
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	err = p.cmd.Wait()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v after %v", err, time.Since(began))
	}
}
