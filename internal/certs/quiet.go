package certs

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// quiet is a logger for certmagic that speaks through log: what it says is for those who look into a failure, since
// what came of it is logged here.
func quiet(log *slog.Logger) *zap.Logger { return zap.New(&slogCore{log: log}) }

// slogCore is a slog.Logger as zap sees it.
type slogCore struct{ log *slog.Logger }

// level is debug for all but errors, and no more than a warning for these: they are tried again.
func level(l zapcore.Level) slog.Level {
	if l >= zapcore.ErrorLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), level(l))
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(attributes(fields)...)}
}

func (c *slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), level(e.Level), "ACME: "+e.Message, attributes(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

// attributes are the fields as keys and values.
func attributes(fields []zapcore.Field) []any {
	var list []any
	for _, f := range fields {
		m := zapcore.NewMapObjectEncoder()
		f.AddTo(m)
		for k, v := range m.Fields {
			list = append(list, k, v)
		}
	}
	return list
}
