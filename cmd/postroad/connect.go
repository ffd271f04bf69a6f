package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
)

// defaultConfig is the configuration that is used when it is there.
const defaultConfig = "postroad.toml"

// loadConfig returns the configuration that the flags name, or the default.
func (a *app) loadConfig() (config.Config, error) {
	path := a.config
	if path == "" {
		if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
			return config.Default(), nil
		}
		path = defaultConfig
	}
	return config.Load(path)
}

// directory returns the configuration of the data directory that the flags name. To a directory that is named belongs
// the configuration that is named too, or lies about and leads there.
func (a *app) directory() (config.Config, error) {
	cfg, err := a.loadConfig()
	switch {
	case a.dir == "":
		return cfg, err
	case a.config == "" && (err != nil || !sameDir(cfg.DataDir, a.dir)):
		cfg, err = config.Default(), nil
	}
	cfg.DataDir = a.dir
	return cfg, err
}

// sameDir reports whether two paths lead to the same directory.
func sameDir(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// patience is how long a data directory may be in other hands without a server that
// answers, as while one starts or stops.
const patience = 5 * time.Second

// service returns the running server's service, or that of the data directory itself
// when no server runs. The caller closes it.
func (a *app) service(ctx context.Context) (control.Service, io.Closer, error) {
	if a.socket != "" {
		return a.dial(a.socket)
	}
	cfg, err := a.directory()
	if err != nil {
		return nil, nil, err
	}
	until := time.Now().Add(patience)
	for {
		svc, closer, err := a.dial(control.SocketPath(cfg.DataDir))
		if !errors.Is(err, control.NotFound) {
			return svc, closer, err
		}
		admin, closer, err := postroad.OpenAdmin(cfg)
		if !errors.Is(err, control.Unavailable) || time.Now().After(until) {
			return admin, closer, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (a *app) dial(socket string) (control.Service, io.Closer, error) {
	c, err := control.Dial(socket)
	if errors.Is(err, control.ErrNoServer) {
		return nil, nil, control.Errorf(control.NotFound, "control socket %s: %v", socket, err).
			WithHint("start it with `postroad serve`, or leave --socket out to open the data directory")
	}
	if err != nil {
		return nil, nil, err
	}
	return c, c, nil
}

// with runs fn with the service, as the user who gave the command.
func (a *app) with(ctx context.Context, fn func(context.Context, control.Service) error) error {
	svc, closer, err := a.service(ctx)
	if err != nil {
		return err
	}
	err = fn(control.WithCaller(ctx, os.Getuid()), svc)
	return errors.Join(err, closer.Close())
}

// action is a command's work on the service.
type action func(ctx context.Context, svc control.Service, args []string) error

// on makes a command's run of an action.
func (a *app) on(fn action) func(context.Context, *cobra.Command, []string) error {
	return func(ctx context.Context, _ *cobra.Command, args []string) error {
		return a.with(ctx, func(ctx context.Context, svc control.Service) error { return fn(ctx, svc, args) })
	}
}
