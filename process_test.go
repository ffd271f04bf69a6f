package postroad_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"postroad/internal/control"
)

// binary builds the real command once and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postroad-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "postroad")
	out, err := exec.Command("go", "build", "-o", path, "./cmd/postroad").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the command: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built {
		if path, err := binary(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// built says that binary was called, and that there is something to remove.
var built bool

// process is a running `postroad quickstart`.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	log *os.File

	Data        string `json:"data"`
	SMTP        string `json:"smtp"`
	Submission  string `json:"submission"`
	Submissions string `json:"submissions"`
	IMAP        string `json:"imap"`
	IMAPS       string `json:"imaps"`
	LMTP        string `json:"lmtp"`
	Control     string `json:"control"`
	Accounts    []struct {
		Address  string `json:"address"`
		Password string `json:"password"`
	} `json:"accounts"`
}

func postroadPath(t testing.TB) string {
	t.Helper()
	built = true
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// launch starts the real binary on free ports and returns when it is ready.
func launch(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	p, err := tryLaunch(t, dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryLaunch(t testing.TB, dir string, args ...string) (*process, error) {
	t.Helper()
	p := &process{t: t}
	p.cmd = exec.Command(postroadPath(t), append([]string{"quickstart", "--json", "--dir", dir,
		"--smtp", "127.0.0.1:0", "--submission", "127.0.0.1:0", "--submissions", "127.0.0.1:0",
		"--imap", "127.0.0.1:0", "--imaps", "127.0.0.1:0"}, args...)...)
	var err error
	if p.log, err = os.Create(dir + ".log"); err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, p)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("the server did not become ready: %w\n%s", err, p.logText())
	}
	return p, nil
}

// launchWith starts the real binary with a configuration, whose data directory is dir, and returns when it is ready.
func launchWith(t testing.TB, dir, config string) *process {
	t.Helper()
	return launchIn(t, memoryGroup{}, dir, config)
}

// launchIn is launchWith within a control group.
func launchIn(t testing.TB, group memoryGroup, dir, config string) *process {
	t.Helper()
	p := &process{t: t, Data: dir, Control: control.SocketPath(dir)}
	path := dir + ".toml"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(postroadPath(t), "serve", "--config", path)
	if group.dir != "" {
		p.cmd = exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs" && exec "$2" serve --config "$3"`, "sh", group.dir, postroadPath(t), path)
		p.cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	}
	var err error
	if p.log, err = os.Create(dir + ".log"); err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() }) // of a test that fails
	eventually(t, "a server that is ready", func() bool { return p.findListeners() == nil })
	return p
}

// findListeners asks the server where it listens.
func (p *process) findListeners() error {
	admin, err := control.Dial(p.Control)
	if err != nil {
		return err
	}
	defer admin.Close()
	status, err := admin.Status(p.t.Context())
	l := status.Listeners
	p.SMTP, p.Submission, p.Submissions, p.LMTP, p.IMAP, p.IMAPS = l["smtp"], l["submission"], l["submissions"], l["lmtp"], l["imap"], l["imaps"]
	return err
}

// listener is the address of a listener.
func (p *process) listener(name string) string {
	return map[string]string{"smtp": p.SMTP, "submission": p.Submission, "submissions": p.Submissions, "lmtp": p.LMTP, "imap": p.IMAP}[name]
}

// admin is a connection to the server's control socket.
func (p *process) admin() *control.Client {
	p.t.Helper()
	c, err := control.Dial(p.Control)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// kill ends the process at once, as a crash would.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.log.Close()
}

// stop asks the process to end, and fails the test when it does not end cleanly.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(os.Interrupt)
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the server did not stop cleanly: %v\n%s", err, p.logText())
	}
	p.log.Close()
}

func (p *process) logText() string {
	b, _ := os.ReadFile(p.log.Name())
	return string(b[max(0, len(b)-4000):])
}
