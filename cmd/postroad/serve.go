package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) serve() *cobra.Command {
	return command{
		use: "serve", short: "run the server", args: cobra.NoArgs,
		long: `Run the server that the configuration file describes. The log goes to standard
error. SIGTERM and SIGINT let sessions end within shutdown_timeout; a second one
stops at once, which loses nothing either.`,
		example: "postroad serve --config /etc/postroad.toml",
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if a.socket != "" {
				return usagef("serve has no --socket; it is control.sock in the data directory")
			}
			cfg, err := a.loadConfig()
			if err != nil {
				return err
			}
			if a.dir != "" {
				cfg.DataDir = a.dir
			}
			srv, err := postroad.Open(cfg, postroad.Options{Log: newLog(a.err, cfg.Log)})
			if err != nil {
				return startError(err)
			}
			return serveUntilDone(ctx, a.err, srv, cfg)
		},
	}.cobra()
}

// stopGrace is how much longer than the configuration says stopping may take.
const stopGrace = 5 * time.Second

// serveUntilDone runs the server until a signal, and does not wait for ever for it
// to stop: what it has accepted is on the disk.
func serveUntilDone(ctx context.Context, w io.Writer, srv *postroad.Server, cfg config.Config) error {
	defer runtime.KeepAlive(ballast())
	limit := cfg.ShutdownTimeout.Std() + stopGrace
	stopped := context.AfterFunc(ctx, func() {
		time.Sleep(limit)
		fmt.Fprintf(w, "postroad: still not stopped after %s; going without it\n", limit)
		os.Exit(exitFailure)
	})
	defer stopped()
	return srv.Run(ctx)
}

// ballastSize is how much the heap grows at least between two collections.
const ballastSize = 32 << 20

// ballast keeps the garbage collector from running fifty times a second: what a server holds is some MiB, so that under
// load it would be collected as soon as a few messages have come. Nothing is ever written to it, so that it takes no
// memory itself; the bound is 32 MiB more than otherwise, where a larger GOGC would multiply it. An administrator who
// has set GOGC or GOMEMLIMIT is left alone.
func ballast() []byte {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, ballastSize)
}

// newLog returns the log that a configuration describes.
func newLog(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // the configuration was checked
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// startError adds what to do to the errors that people meet when they start a server.
func startError(err error) error {
	hint := ""
	switch {
	case errors.Is(err, postroad.ErrLocked):
		hint = "a server or another command is at work there: `postroad status` asks it"
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another program listens there; stop it, or choose another address (port 0 picks a free port)"
	case errors.Is(err, fs.ErrPermission):
		hint = "look at the owner and mode, or run this as another user; ports below 1024 need CAP_NET_BIND_SERVICE"
	default:
		return err
	}
	return &control.Error{Code: control.Refused, Text: err.Error(), Hint: hint}
}
