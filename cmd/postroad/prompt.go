package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// maxPassword is far beyond any password; a longer first line is a mistake.
const maxPassword = 4096

// newPassword asks for a password twice on a terminal, without echo, or reads one
// line from standard input. It never comes from the command line, which others on
// the machine can read.
func (a *app) newPassword(ctx context.Context, address string) (string, error) {
	if !a.onTerminal() {
		return a.passwordLine(ctx)
	}
	first, err := a.ask(ctx, "password for "+address+": ")
	if err != nil {
		return "", err
	}
	again, err := a.ask(ctx, "again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", fmt.Errorf("the two passwords differ; nothing was changed")
	}
	return first, nil
}

func (a *app) onTerminal() bool { return term.IsTerminal(int(a.in.Fd())) }

// ask reads a line without echo. When it is interrupted, the terminal is as before.
func (a *app) ask(ctx context.Context, prompt string) (string, error) {
	fd := int(a.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(a.err, clean(prompt))
	defer fmt.Fprintln(a.err)
	line, err := await(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	if ctx.Err() != nil {
		_ = term.Restore(fd, before)
	}
	return line, err
}

// await returns what read returns, or the context's error while it still waits. The
// process ends then, and the wait with it.
func await(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := read()
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// line reads one line of standard input, of at most max octets.
func (a *app) line(ctx context.Context, max int64) (string, error) {
	line, err := await(ctx, func() (string, error) {
		return bufio.NewReader(io.LimitReader(a.in, max)).ReadString('\n')
	})
	if err == io.EOF {
		err = nil
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

func (a *app) passwordLine(ctx context.Context) (string, error) {
	line, err := a.line(ctx, maxPassword)
	if err != nil {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	if line == "" {
		return "", fmt.Errorf("no password: it is read from the first line of standard input, which is empty")
	}
	return line, nil
}

// sure asks before what cannot be undone. Without a terminal nobody can answer, and
// the command is taken at its word.
func (a *app) sure(ctx context.Context, yes bool, question string) error {
	if yes || !a.onTerminal() {
		return nil
	}
	fmt.Fprintf(a.err, "%s [y/N] ", clean(question))
	answer, err := a.line(ctx, 100)
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return nil
	}
	return fmt.Errorf("not confirmed; nothing was changed")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
