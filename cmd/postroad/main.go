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

// run is main with an exit code.
func run() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2) // none is lost, however close the second follows
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obey(signals, cancel)
	a := &app{in: os.Stdin, out: &output{File: os.Stdout}, err: os.Stderr}
	return a.run(ctx, os.Args[1:])
}

// obey cancels at the first signal to stop. The second has its usual effect: it ends
// the process at once.
func obey(signals <-chan os.Signal, cancel func()) {
	<-signals
	cancel()
	second := <-signals
	signal.Reset(second)
	_ = syscall.Kill(os.Getpid(), second.(syscall.Signal))
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
