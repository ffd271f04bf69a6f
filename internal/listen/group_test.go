package listen

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// talker is a session that leaves when it is asked to, or does not, or says goodbye
// to a peer that does not read.
type talker struct {
	c   *Conn
	way string
}

func (s *talker) Leave() {
	switch s.way {
	case "leaves":
		s.c.Close()
	case "talks":
		s.c.Write(make([]byte, 2*maxBuffered))
	}
}

// talk begins a session that lasts until its connection does.
func talk(g *Group, way string) func(*Conn) {
	return func(c *Conn) {
		defer g.Ended()
		defer c.Close()
		s := &talker{c, way}
		if !g.Add(s) {
			return
		}
		defer g.Remove(s)
		io.Copy(io.Discard, c)
	}
}

func TestGroupShutdown(t *testing.T) {
	for _, test := range []struct {
		way  string
		took time.Duration
		err  error
	}{
		{"leaves", 0, nil},
		{"stays", 10 * time.Second, context.DeadlineExceeded},
		{"talks", 10 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(test.way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g Group
				one, a := pipe("192.0.2.1")
				two, b := pipe("192.0.2.2")
				defer a.Close()
				defer b.Close()
				served := make(chan error, 1)
				go func() { served <- g.Serve(newScript(one, two), Options{}, talk(&g, test.way)) }()
				synctest.Wait()
				if g.Open() != 2 || len(g.Sessions()) != 2 || g.Draining() {
					t.Errorf("open %d, sessions %d, draining %v", g.Open(), len(g.Sessions()), g.Draining())
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				begin := time.Now()
				if err := g.Shutdown(ctx); !errors.Is(err, test.err) {
					t.Errorf("shutdown: %v", err)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("shutdown took %v", took)
				}
				if err := <-served; err != nil {
					t.Errorf("serve: %v", err)
				}
				if g.Open() != 0 || len(g.Sessions()) != 0 {
					t.Errorf("left behind: %d connections, %d sessions", g.Open(), len(g.Sessions()))
				}
				if g.Add(&talker{}) {
					t.Error("a session was added after the end")
				}
				if err := g.Serve(newScript(), Options{}, talk(&g, "leaves")); err != ErrShutDown {
					t.Errorf("serve after the end: %v", err)
				}
			})
		})
	}
}
