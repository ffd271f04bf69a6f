package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxPassword is far beyond any password; a longer first line is a mistake.
const maxPassword = 4096

// newPassword asks for a password twice on a terminal, without echo, or reads one
// line from standard input. It never comes from the command line, which others on
// the machine can read.
func (a *app) newPassword(address string) (string, error) {
	if !a.onTerminal() {
		return a.passwordLine()
	}
	first, err := a.ask("password for " + address + ": ")
	if err != nil {
		return "", err
	}
	again, err := a.ask("again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", fmt.Errorf("the two passwords differ; nothing was changed")
	}
	return first, nil
}

func (a *app) onTerminal() bool { return term.IsTerminal(int(a.in.Fd())) }

func (a *app) ask(prompt string) (string, error) {
	fmt.Fprint(a.err, clean(prompt))
	b, err := term.ReadPassword(int(a.in.Fd()))
	fmt.Fprintln(a.err)
	return string(b), err
}

func (a *app) passwordLine() (string, error) {
	line, err := bufio.NewReader(io.LimitReader(a.in, maxPassword)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", fmt.Errorf("no password: it is read from the first line of standard input, which is empty")
	}
	return line, nil
}

// sure asks before what cannot be undone. Without a terminal nobody can answer, and
// the command is taken at its word.
func (a *app) sure(yes bool, question string) error {
	if yes || !a.onTerminal() || !isTerminal(a.err) {
		return nil
	}
	fmt.Fprintf(a.err, "%s [y/N] ", clean(question))
	line, _ := bufio.NewReader(io.LimitReader(a.in, 100)).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	return fmt.Errorf("not confirmed; nothing was changed")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
