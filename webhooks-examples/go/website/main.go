// The Website webhook: says which children a Website wants and what its status is. This file is its server.
// Never talks to the Kubernetes API, keeps no state between calls, needs nothing but the standard library.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// A request carries the controller, the Website and its three children: kilobytes. Larger bodies are refused (413).
	maxBodyBytes = 8 << 20
	// What is read and dropped after a refusal, so that the client sees the reply and not a reset connection.
	maxDroppedBytes = 2 * maxBodyBytes
	dropTime        = 2 * time.Second
	// A connection above it gets 503. Ringmaster opens at most one per worker (64 by default) and member.
	maxConnections = 1024
	full           = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	// Longer than a client keeps an idle connection, so that it is the client who closes it. Also the most that a request
	// may take to arrive, or a reply to leave.
	idleTime = 120 * time.Second
	// How long running calls may take once the hook is told to stop.
	drainTime = 10 * time.Second
)

const (
	noSuchPath = "no such path; there are POST /sync and GET /healthz\n"
	plainText  = "text/plain; charset=utf-8"
)

// hook answers POST /sync and GET /healthz.
type hook struct {
	sync    func(request, shipped object) (object, error)
	themes  *themeFile
	verbose bool
	maxBody int64
}

func newHook(themes *themeFile, verbose bool) *hook {
	return &hook{sync: Sync, themes: themes, verbose: verbose, maxBody: maxBodyBytes}
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		h.post(w, r)
	case r.Method != http.MethodGet:
		w.Header().Set("Connection", "close")
		h.answer(w, r, http.StatusNotImplemented, plainText, "use GET or POST\n")
	case r.RequestURI == "/healthz":
		h.answer(w, r, http.StatusOK, plainText, "ok\n")
	case r.RequestURI == "/sync":
		w.Header().Set("Allow", "POST")
		h.answer(w, r, http.StatusMethodNotAllowed, plainText, "/sync: use POST\n")
	default:
		h.answer(w, r, http.StatusNotFound, plainText, noSuchPath)
	}
}

func (h *hook) post(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(r.TransferEncoding) > 0 || r.Header.Get("Content-Length") == "":
		w.Header().Set("Connection", "close")
		h.answer(w, r, http.StatusLengthRequired, plainText, "Content-Length: must be set; chunked bodies are not read\n")
		return
	case r.ContentLength > h.maxBody:
		w.Header().Set("Connection", "close")
		text := fmt.Sprintf("body: %d bytes is more than the limit of %d\n", r.ContentLength, h.maxBody)
		h.answer(w, r, http.StatusRequestEntityTooLarge, plainText, text)
		dropBody(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client left; there is nobody to answer
	}
	if r.RequestURI != "/sync" {
		h.answer(w, r, http.StatusNotFound, plainText, noSuchPath)
		return
	}
	value, err := parse(body)
	if err != nil {
		h.answer(w, r, http.StatusBadRequest, plainText, fmt.Sprintf("body: not valid JSON: %v\n", err))
		return
	}
	request, ok := value.(object)
	if !ok {
		text := "body: must be a JSON object; send a hook request of protocol v2\n"
		h.answer(w, r, http.StatusBadRequest, plainText, text)
		return
	}
	reply, err := h.call(request)
	var bad badRequest
	switch {
	case errors.As(err, &bad):
		h.answer(w, r, http.StatusBadRequest, plainText, string(bad)+"\n")
	case err != nil:
		fmt.Fprintf(os.Stderr, "sync: %v\n", err)
		h.answer(w, r, http.StatusInternalServerError, plainText, "the hook failed; its log says why\n")
	default:
		h.answer(w, r, http.StatusOK, "application/json", compact(reply))
	}
}

// call is h.sync with a panic turned into an error.
func (h *hook) call(request object) (reply object, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("panic: %v\n%s", fault, debug.Stack())
		}
	}()
	return h.sync(request, h.themes.now())
}

func (h *hook) answer(w http.ResponseWriter, r *http.Request, code int, contentType, body string) {
	header := w.Header()
	header.Set("Server", "website-hook")
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	io.WriteString(w, body) // fails where the client has left
	if h.verbose {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(os.Stderr, "%s \"%s %s %s\" %d -\n", host, r.Method, r.RequestURI, r.Proto, code)
	}
}

// dropBody sends the reply, then reads what of the body has been sent.
func dropBody(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if control.Flush() == nil && control.SetReadDeadline(time.Now().Add(dropTime)) == nil {
		io.CopyN(io.Discard, r.Body, maxDroppedBytes) // ends early where the client leaves
	}
}

// boundedListener refuses connections above the number of its slots.
type boundedListener struct {
	net.Listener
	slots chan struct{}
}

// boundedConnection gives its slot back when it closes.
type boundedConnection struct {
	*net.TCPConn
	release func()
}

func (c boundedConnection) Close() error {
	c.release()
	return c.TCPConn.Close()
}

func (l boundedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		connection, ok := accepted.(*net.TCPConn)
		if !ok {
			return nil, fmt.Errorf("%T is not a TCP connection", accepted)
		}
		select {
		case l.slots <- struct{}{}:
			return boundedConnection{connection, sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			io.WriteString(connection, full) // fits any send buffer
			connection.CloseWrite()
			connection.Close()
		}
	}
}

// serve answers on the listener until the context ends, then stops accepting and lets running calls end.
func serve(ctx context.Context, listener net.Listener, hook *hook, connections int) error {
	server := &http.Server{
		Handler:                      hook,
		ReadTimeout:                  idleTime,
		WriteTimeout:                 2 * idleTime, // counts from the end of the header
		IdleTimeout:                  idleTime,
		DisableGeneralOptionsHandler: true,
	}
	if !hook.verbose {
		server.ErrorLog = log.New(io.Discard, "", 0) // a client that went away is no news
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(boundedListener{listener, make(chan struct{}, connections)}) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	draining, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := server.Shutdown(draining); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close()
}

// listenAddress takes HOST:PORT, [IPV6]:PORT or :PORT (all interfaces) apart, into what net.Listen takes.
func listenAddress(text string) (network, address string, err error) {
	colon := strings.LastIndexByte(text, ':')
	port, err := strconv.ParseUint(text[colon+1:], 10, 16)
	if colon < 0 || err != nil {
		return "", "", fmt.Errorf("%q is not HOST:PORT; for example 127.0.0.1:8080", text)
	}
	host := strings.Trim(text[:colon], "[]")
	network = "tcp4"
	if strings.Contains(host, ":") {
		network = "tcp6"
	}
	return network, net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

func run(arguments []string) int {
	flags := flag.NewFlagSet("website-hook", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8080", "where to listen, `HOST:PORT`; port 0 takes a free one")
	themes := flags.String("themes", "",
		"take the themes from this JSON `FILE`, name to {color, fontFamily}, and follow its changes")
	verbose := flags.Bool("verbose", false, "log a line per request")
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unrecognized arguments: %s\n", strings.Join(flags.Args(), " "))
		return 2
	}
	network, address, err := listenAddress(*listen)
	if err != nil {
		fmt.Fprintf(os.Stderr, "--listen: %v\n", err)
		return 2
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen(network, address)
	if err != nil {
		fmt.Fprintf(os.Stderr, "--listen %s: %v\n", *listen, err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "listening on %s\n", listener.Addr())
	if err := serve(ctx, listener, newHook(newThemeFile(*themes), *verbose), maxConnections); err != nil {
		fmt.Fprintf(os.Stderr, "serve: %v\n", err)
		return 1
	}
	return 0
}

func main() { os.Exit(run(os.Args[1:])) }
