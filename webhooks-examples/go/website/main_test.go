// Tests of the server, on loopback: in this process, and as a process of its own for flags and signals.
// Never leaves a process behind: every one that is started is killed at the end of its test.

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const waitTime = 10 * time.Second

// As a process of its own, the test binary is the hook.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_HOOK") != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// start serves the hook on loopback until the test ends.
func start(t *testing.T, h *hook, connections int) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- serve(ctx, listener, h, connections) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// client is one connection; each request is one write.
type client struct {
	t *testing.T
	net.Conn
	reader *bufio.Reader
}

func connect(t *testing.T, address string) *client {
	t.Helper()
	connection, err := net.DialTimeout("tcp4", address, waitTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return &client{t, connection, bufio.NewReader(connection)}
}

func (c *client) write(text string) {
	c.t.Helper()
	c.SetDeadline(time.Now().Add(waitTime)) // for its reply too
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) reply(method string) (*http.Response, string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response, string(body)
}

func (c *client) call(method, path, body string) (code int, reply string) {
	c.t.Helper()
	c.write(head(method, path, len(body)) + body)
	response, reply := c.reply(method)
	return response.StatusCode, reply
}

func head(method, path string, length int) string {
	if method == "GET" {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: hook\r\n\r\n", path)
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: hook\r\nContent-Length: %d\r\n\r\n", method, path, length)
}

func TestErrorsKeepTheConnectionAndNameTheFix(t *testing.T) {
	request := fixture(t, "new.request")
	want := compact(mustSync(t, request))
	c := connect(t, start(t, newHook(newThemeFile(""), false), maxConnections))
	for _, call := range []struct {
		method, path, body string
		code               int
		reply              string
	}{
		{"POST", "/sync", compact(request), 200, want},
		{"POST", "/sync", compact(request), 200, want},
		{"POST", "/sync", "{", 400, "body: not valid JSON: "},
		{"POST", "/sync", "", 400, "body: not valid JSON: "},
		{"POST", "/sync", "\xff", 400, "body: not valid JSON: "},
		{"POST", "/sync", strings.Repeat("[", 100_000), 400, "body: not valid JSON: "},
		{"POST", "/sync", "[]", 400, "body: must be a JSON object"},
		{"POST", "/sync", "{}", 400, "parent: must be an object"},
		{"GET", "/healthz", "", 200, "ok\n"},
		{"GET", "/nothing", "", 404, "no such path"},
		{"POST", "/nothing", "{}", 404, "no such path"},
		{"GET", "/sync", "", 405, "/sync: use POST"},
	} {
		code, reply := c.call(call.method, call.path, call.body)
		if code != call.code || !strings.HasPrefix(reply, call.reply) {
			t.Errorf("%s %s %.40q: %d %.80q", call.method, call.path, call.body, code, reply)
		}
	}
}

func TestOversizedBodies(t *testing.T) {
	h := newHook(newThemeFile(""), false)
	h.maxBody = 1000
	small := start(t, h, maxConnections)
	code, reply := connect(t, small).call("POST", "/sync", strings.Repeat(" ", 1001))
	expect(t, "1001 bytes", fmt.Sprint(code, " ", reply), "413 body: 1001 bytes is more than the limit of 1000\n")
	code, _ = connect(t, small).call("POST", "/sync", strings.Repeat(" ", 1000))
	expect(t, "1000 bytes", code, 400)

	whole := start(t, newHook(newThemeFile(""), false), maxConnections)
	// A whole oversized body still gets its reply; one that is only announced needn't be sent.
	code, _ = connect(t, whole).call("POST", "/sync", strings.Repeat(" ", maxBodyBytes+1))
	expect(t, "sent", code, 413)
	announced := connect(t, whole)
	announced.write(head("POST", "/sync", maxBodyBytes+1))
	response, _ := announced.reply("POST")
	expect(t, "announced", response.StatusCode, 413)
}

func TestAClientThatLeavesGetsNoReply(t *testing.T) {
	c := connect(t, start(t, newHook(newThemeFile(""), false), maxConnections))
	c.write(head("POST", "/sync", 3) + "{}")
	c.Conn.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(c.reader)
	expect(t, "reply", fmt.Sprintf("%q %v", rest, err), `"" <nil>`)
}

func TestAFaultInTheHookIs500(t *testing.T) {
	h := newHook(newThemeFile(""), false)
	h.sync = func(object, object) (object, error) { panic("secret") }
	c := connect(t, start(t, h, maxConnections))
	said := stderr(t, func() {
		code, reply := c.call("POST", "/sync", "{}")
		expect(t, "reply", fmt.Sprint(code, " ", reply), "500 the hook failed; its log says why\n")
	})
	if !strings.Contains(said, "secret") {
		t.Errorf("the log says %q", said)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	address := start(t, newHook(newThemeFile(""), false), 1)
	first := connect(t, address)
	code, _ := first.call("GET", "/healthz", "")
	expect(t, "first", code, 200)
	second := connect(t, address)
	second.SetDeadline(time.Now().Add(waitTime))
	response, _ := second.reply("GET")
	expect(t, "second", response.StatusCode, 503)
	// The slot of a closed connection is free again, a moment later.
	first.Close()
	for end := time.Now().Add(waitTime); ; time.Sleep(time.Millisecond) {
		third := connect(t, address)
		third.SetDeadline(end)
		io.WriteString(third, head("GET", "/healthz", 0))
		response, err := http.ReadResponse(third.reader, nil)
		if err == nil && response.StatusCode == 200 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %v", response, err)
		}
		third.Close()
	}
}

// stderr is what is said on stderr while f runs.
func stderr(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = before }()
	f()
	said, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

func TestThemesFollowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "themes.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	themes := newThemeFile(path)
	said := stderr(t, func() {
		expect(t, "no file", names(themes.now()), "dark, light, solarized")
		write("no json")
		expect(t, "a bad file", names(themes.now()), "dark, light, solarized")
		write("[]")
		expect(t, "no object", names(themes.now()), "dark, light, solarized")
	})
	expect(t, "lines about it", strings.Count(said, "--themes "+path+": "), 3)
	said = stderr(t, func() {
		write(`{"plain": {"color": "white"}}`)
		expect(t, "one theme", names(themes.now()), "plain")
		write(`{}`)
		expect(t, "none", names(themes.now()), "none")
	})
	expect(t, "lines about good files", said, "")
	expect(t, "without a file", names(newThemeFile("").now()), "dark, light, solarized")
}

// process is the hook as a process of its own.
type process struct {
	*exec.Cmd
	stderr  *bufio.Reader
	address string
}

// spawn starts a hook and waits until it listens.
func spawn(t *testing.T, command *exec.Cmd) *process {
	t.Helper()
	pipe, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	p := &process{command, bufio.NewReader(pipe), ""}
	line, _ := p.stderr.ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !found {
		t.Fatalf("it said %q", line)
	}
	p.address = address
	return p
}

// ends waits until the process has ended, for a while, and is what it said until then.
func (p *process) ends(t *testing.T) string {
	t.Helper()
	defer time.AfterFunc(waitTime, func() { p.Process.Kill() }).Stop()
	rest, _ := io.ReadAll(p.stderr)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	return string(rest)
}

func itself(arguments ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], arguments...)
	command.Env = append(os.Environ(), "RUN_AS_HOOK=1")
	return command
}

func TestSignalsEndItWithSuccess(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := spawn(t, itself("--listen", "127.0.0.1:0"))
		idle := connect(t, p.address)
		code, _ := idle.call("GET", "/healthz", "")
		expect(t, "code", code, 200)
		p.Process.Signal(signal)
		expect(t, "more than one line without --verbose", p.ends(t), "")
	}
}

func TestARunningCallEndsBeforeTheProcess(t *testing.T) {
	p := spawn(t, itself("--listen=127.0.0.1:0", "--verbose"))
	body := compact(fixture(t, "new.request"))
	running := connect(t, p.address)
	// The server asks for the body once it is in the call.
	expecting := strings.Replace(head("POST", "/sync", len(body)), "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1)
	running.write(expecting)
	response, _ := running.reply("POST")
	expect(t, "asked for the body", response.StatusCode, 100)
	p.Process.Signal(syscall.SIGTERM)
	for end := time.Now().Add(waitTime); ; time.Sleep(5 * time.Millisecond) {
		connection, err := net.Dial("tcp4", p.address)
		if err != nil {
			break
		}
		connection.Close()
		if time.Now().After(end) {
			t.Fatal("it still listens")
		}
	}
	running.write(body)
	response, reply := running.reply("POST")
	expect(t, "code", response.StatusCode, 200)
	expect(t, "closes", response.Close, true)
	expect(t, "reply", reply, compact(mustSync(t, fixture(t, "new.request"))))
	expect(t, "log", p.ends(t), "127.0.0.1 \"POST /sync HTTP/1.1\" 200 -\n")
}

func TestBadFlagsNameTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		arguments []string
		code      int
		text      string
	}{
		{[]string{"--listen", "8080"}, 2, "--listen: \"8080\" is not HOST:PORT; for example 127.0.0.1:8080"},
		{[]string{"--listen", "127.0.0.1:http"}, 2, "for example 127.0.0.1:8080"},
		{[]string{"--listen", "127.0.0.1:70000"}, 2, "for example 127.0.0.1:8080"},
		{[]string{"--listen", taken.Addr().String()}, 1, "--listen " + taken.Addr().String() + ": "},
		{[]string{"--lisen"}, 2, "-lisen"},
		{[]string{"more"}, 2, "unrecognized arguments: more"},
		{[]string{"--help"}, 0, "-listen HOST:PORT"},
	} {
		command := itself(c.arguments...)
		said, _ := command.CombinedOutput()
		if command.ProcessState.ExitCode() != c.code || !strings.Contains(string(said), c.text) {
			t.Errorf("%v: exit %d: %s", c.arguments, command.ProcessState.ExitCode(), said)
		}
	}
}
