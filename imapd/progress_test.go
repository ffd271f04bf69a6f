package imapd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/listen"
	"postroad/internal/listen/listentest"
)

// working is a session whose command runs for some time.
func working(t *testing.T) (s *session, client io.ReadWriteCloser) {
	t.Helper()
	pipes := listentest.NewPipes()
	l := listen.New(pipes, listen.Options{Total: 1})
	t.Cleanup(func() { l.Close() })
	ours := make(chan io.ReadWriteCloser, 1)
	go func() { ours <- pipes.Dial() }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s = newSession(&Server{ctx: t.Context(), Config: Config{Limits: Limits{}.WithDefaults()}}, c.(*listen.Conn))
	s.tag = "a1"
	return s, <-ours
}

// A client is told every ten seconds that its command goes on, and not of what is quick.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := working(t)
		defer client.Close()
		for range 3 {
			if err := s.during(func(context.Context) error { time.Sleep(9 * time.Second); return nil }); err != nil {
				t.Error(err)
			}
		}
		lines := make(chan string, 10)
		go func() {
			defer close(lines)
			for r := bufio.NewScanner(client); r.Scan(); {
				lines <- r.Text()
			}
		}()
		broken := errors.New("broken")
		if err := s.during(func(context.Context) error { time.Sleep(35 * time.Second); return broken }); err != broken {
			t.Errorf("the work's error is %v", err)
		}
		s.conn.raw.Close()
		n := 0
		for line := range lines {
			if n++; line != `* OK [INPROGRESS ("a1" NIL NIL)] still at it` {
				t.Error(line)
			}
		}
		if n != 3 {
			t.Errorf("told %d times", n)
		}
	})
}

// A tag that would end the response code is not told (RFC 9585, 4).
func TestProgressOfOddTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := working(t)
		defer client.Close()
		s.tag = "a]b"
		told := make(chan string, 1)
		go func() {
			r := bufio.NewScanner(client)
			r.Scan()
			told <- r.Text()
		}()
		if err := s.during(func(context.Context) error { time.Sleep(15 * time.Second); return nil }); err != nil {
			t.Error(err)
		}
		if line := <-told; line != "* OK [INPROGRESS (NIL NIL NIL)] still at it" {
			t.Error(line)
		}
	})
}

// The work of a client that is gone ends.
func TestProgressWithoutClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := working(t)
		client.Close()
		began := time.Now()
		err := s.during(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if took := time.Since(began); err == nil || took > time.Minute {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// That work was cancelled is no failure of the server's, though the session may not know yet why it was.
func TestCancelledWorkIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := working(t)
		defer client.Close()
		s.srv.Log = slog.New(strict{t})
		if r := s.refuse("search", fmt.Errorf("search: %w", context.Canceled)); r.code != codeUnavailable {
			t.Errorf("%+v", r)
		}
	})
}
