// Command postroad is a mail server and the administrator's way to it. It is a thin
// shell: a server is package postroad's, and every administrative operation is a
// method of control.Service, called at the running server or, when none runs, on the
// data directory itself.
//
// It exits with 0 when all went well, 1 when something failed, and 2 when it was
// called in a way that makes no sense.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run is main with an exit code. The first signal to stop cancels the context; after
// it signals have their usual effect, so that the second ends the process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	a := &app{in: os.Stdin, out: &output{File: os.Stdout}, err: os.Stderr}
	return a.run(ctx, os.Args[1:])
}

// app is one call of the command: its streams, and the flags that all commands have.
type app struct {
	in       *os.File
	out, err io.Writer

	json    bool
	dir     string
	config  string
	socket  string
	started bool // a command's own work began: errors are no longer about usage
}

// output is standard output that remembers what went wrong, so that a full disk
// behind it is a failure of the command.
type output struct {
	*os.File
	failed error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	if err != nil {
		o.failed = err
	}
	return n, err
}
