package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

const killedDir = "POSTROAD_TEST_KILLED_DIR"

// TestMain is the process that TestKill kills, when it is asked to be.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		beKilled(dir)
	}
	os.Exit(m.Run())
}

// beKilled stores and drops bodies as fast as it can and prints what was acknowledged.
// A body says itself what it is: its ID, then octets that follow from it.
func beKilled(dir string) {
	s, err := store.Open(dir, store.Options{SegmentSize: 300_000, Reserve: 1})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), uint64(os.Getpid())))
			for {
				killedStep(s, r)
			}
		})
	}
	wg.Go(func() {
		for {
			_, _ = s.Compact(context.Background())
		}
	})
	wg.Wait()
}

func killedStep(s *store.Store, r *rand.Rand) {
	d := s.NewDraft()
	size := r.IntN(8000)
	if r.IntN(30) == 0 {
		size += 128 << 10
	}
	d.Write(bodyOf(d.ID(), size))
	noted := func(tx store.Tx) error {
		tx.SetNote(d.ID(), noteFor(bodyOf(d.ID(), size)))
		return keep(d.ID())(tx)
	}
	if err := s.Update(noted, d); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("kept", d.ID())
	if r.IntN(3) > 0 {
		fmt.Println("dropping", d.ID())
		if err := s.Update(drop(d.ID())); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("dropped", d.ID())
	}
}

func bodyOf(id store.ID, size int) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(id))
	return append(b, octets(size, uint64(id))...)
}

// The process is killed at random moments; whatever it said it had kept is there.
func TestKill(t *testing.T) {
	rounds := 6
	if *full {
		rounds = 300
	}
	dir := t.TempDir()
	kept, dropped := map[store.ID]bool{}, map[store.ID]bool{}
	r := rand.New(rand.NewPCG(3, 3))
	for range rounds {
		out := killOne(t, dir, time.Duration(10+r.IntN(150))*time.Millisecond)
		readReport(t, out, kept, dropped)
		auditKilled(t, dir, kept, dropped)
	}
	t.Logf("%d rounds: %d kept, %d dropped", rounds, len(kept), len(dropped))
}

func killOne(t *testing.T, dir string, after time.Duration) []byte {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(pipe)
	if line, err := in.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	var out bytes.Buffer
	_, _ = in.WriteTo(&out)
	_ = cmd.Wait()
	return out.Bytes()
}

// readReport takes whole lines only: the last one may be cut off.
func readReport(t *testing.T, out []byte, kept, dropped map[store.ID]bool) {
	t.Helper()
	out = out[:bytes.LastIndexByte(out, '\n')+1]
	for line := range strings.Lines(string(out)) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		id, err := store.ParseID(rest)
		if err != nil {
			t.Fatalf("the process says %q", line)
		}
		switch what {
		case "kept":
			kept[id] = true
		case "dropping":
			delete(kept, id) // there or not, until it says dropped
		case "dropped":
			dropped[id] = true
		}
	}
}

func auditKilled(t *testing.T, dir string, kept, dropped map[store.ID]bool) {
	t.Helper()
	s, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	there := map[store.ID]bool{}
	_ = s.View(func(r store.Reader) error {
		for id := range refs(r) {
			there[id] = true
		}
		return nil
	})
	for id := range kept {
		if !there[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	for id := range there {
		if dropped[id] {
			t.Errorf("%s was dropped and is there", id)
		}
		if got := read(t, s, id); !bytes.Equal(got, bodyOf(id, len(got)-8)) {
			t.Errorf("%s is not what was stored", id)
		} else if noteOf(t, s, id) != string(noteFor(got)) {
			t.Errorf("%s has another note", id)
		}
	}
	storetest.Check(t, s, refs)
}
