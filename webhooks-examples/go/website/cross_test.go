// Asks the Python example the same as this one: some hundred generated requests, every kind of character, calls that
// are wrong. Replies must be equal to the byte; refusals in their code and, but for the parser's words, in their text.
// Skipped without python3, unless CI=true. -seed and -requests choose other requests.

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	seed     = flag.Uint64("seed", 1, "of the generated requests")
	requests = flag.Int("requests", 600, "how many requests to generate")
)

func python3(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatal("python3 not found")
	}
	t.Skip("python3 not found: not compared with the Python example")
	return ""
}

// startBoth starts both hooks, with the same themes.
func startBoth(t *testing.T, themes string) (pythonAddress, goAddress string) {
	t.Helper()
	arguments := []string{"-B", filepath.Join(pythonExample, "hook.py"), "--listen=127.0.0.1:0"}
	if themes != "" {
		arguments = append(arguments, "--themes", themes)
	}
	p := spawn(t, exec.Command(python3(t), arguments...))
	go io.Copy(io.Discard, p.stderr) // tracebacks of what is 500
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = null
	// Before `start`'s own cleanup is registered, so that the hook has ended when this runs.
	t.Cleanup(func() { os.Stderr = before; null.Close() })
	return p.address, start(t, newHook(newThemeFile(themes), false), maxConnections)
}

// pair is a connection to each hook.
type pair struct{ python, golang *client }

// compare sends one request to both and compares what they answer.
func (p pair) compare(t *testing.T, text string) (code int, reply string) {
	t.Helper()
	wantCode, want := p.python.call("POST", "/sync", text)
	code, reply = p.golang.call("POST", "/sync", text)
	parser := "body: not valid JSON: "
	if code != wantCode || reply != want && !(strings.HasPrefix(reply, parser) && strings.HasPrefix(want, parser)) {
		t.Errorf("%s\nPython: %d %s\n    Go: %d %s", text, wantCode, want, code, reply)
	}
	return code, reply
}

// literal is the text of a number, sent as it is.
type literal string

func (l literal) MarshalJSON() ([]byte, error) { return []byte(l), nil }

func (o object) MarshalJSON() ([]byte, error) {
	parts := make([]string, len(o))
	for i, field := range o {
		parts[i] = inUTF8(field.key) + ":" + inUTF8(field.value)
	}
	return []byte("{" + strings.Join(parts, ",") + "}"), nil
}

// inUTF8 writes JSON with characters as they are; `compact` escapes all beyond ASCII.
func inUTF8(value any) string {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// generator makes requests out of the fixtures by putting odd values into them.
type generator struct {
	*rand.Rand
	base []object
}

var texts = []string{
	"", "a", "museum", "dark", "light", "plain", "odd", "none", "skip-workload",
	"0", "None", "null", `<b title="x">Tom & Jerry's</b>`,
	"&amp;&#x27;", "it's", `say "hi"`, `it's "both"`, `back\slash`, "a/b", "% {} %s ${x}",
	"Ünïcödé", "日本語", "½ Ⅷ ① ² ٣ ௰", "e\u0301",
	"😀🏳️‍🌈", "\U0001d7d8\U00020000", "\U0001f1e9\U0001f1ea", "ʰ ª ßẞ ſ", "अनुच्छेद",
	"\u0000\u0001\u001f", "tab\tline\nreturn\rfeed\fback\b", "\u007f\u0080\u009f\u00a0\u00ad", "\u2028\u2029\u200b\u3000",
	"\ue000\ufeff\ufffd\uffff", "\U0010ffff\U000e0001",
	"red; } </style><script>alert(1)</script>", "rgb(1, 2%, 3)", "url('x')",
	"#1e1e2e", "Fira Sans, sans-serif", "snake_case-and.dot", "\ufb01 \u212b ①",
}

var numbers = []literal{
	"0", "-0", "1", "-1", "2", "42", "-7", "0.0", "-0.0", "0.5", "1.0", "1e0", "1E5",
	"1e+2", "-1e-2", "1e15", "1e16", "123456789012345680.0",
	"0.0001", "0.00001", "1.5e300", "5e-324", "1e-400",
	"2.2250738585072014e-308", "0.1", "1.7976931348623157e308", "9007199254740993",
	"-9223372036854775809", "123456789012345678901234567890", "100000000000000000000000.0", "3.141592653589793238462643",
}

func (g generator) text() string {
	if g.IntN(4) == 0 {
		return texts[g.IntN(len(texts))] + texts[g.IntN(len(texts))]
	}
	return texts[g.IntN(len(texts))]
}

// value is any JSON value, of at most a few levels.
func (g generator) value(depth int) any {
	switch choice := g.IntN(12); {
	case choice < 4:
		return g.text()
	case choice < 6:
		return numbers[g.IntN(len(numbers))]
	case choice == 6:
		return nil
	case choice == 7:
		return g.IntN(2) == 0
	case choice < 10 && depth > 0:
		array := []any{}
		for range g.IntN(4) {
			array = append(array, g.value(depth-1))
		}
		return array
	case depth > 0:
		made := object{}
		for range g.IntN(4) {
			made = append(made, field{g.text(), g.value(depth - 1)}) // a key may come twice
		}
		return made
	}
	return numbers[g.IntN(len(numbers))]
}

// textOr is mostly a text.
func (g generator) textOr() any {
	if g.IntN(4) > 0 {
		return g.text()
	}
	return g.value(2)
}

func (g generator) theme() any {
	if g.IntN(8) == 0 {
		return g.value(2)
	}
	theme := object{}
	for _, key := range []string{"color", "fontFamily", "other"} {
		if g.IntN(5) > 0 {
			theme = append(theme, field{key, g.textOr()})
		}
	}
	return theme
}

// themes are under the names that texts has.
func (g generator) themes(wrap func(any) any) object {
	themes := object{}
	for range g.IntN(6) {
		themes = append(themes, field{g.text(), wrap(g.theme())})
	}
	return append(themes, field{"dark", wrap(object{{"color", g.textOr()}, {"fontFamily", g.textOr()}})})
}

// request is a fixture with up to five changes.
func (g generator) request() object {
	r := g.base[g.IntN(len(g.base))]
	kind := childKinds[g.IntN(len(childKinds))]
	child := []string{"children", kind, "default/museum"}
	in := func(path ...string) []string { return append(slices.Clone(child), path...) }
	for range g.IntN(6) {
		switch g.IntN(24) {
		case 0, 1, 2, 3:
			r = with(r, g.textOr(), "parent", "spec", "title")
		case 4, 5:
			r = with(r, g.textOr(), "parent", "spec", "theme")
		case 6:
			odd := []any{g.value(2), "no skip-workload here", []any{g.text(), skipWorkload}, []any{[]any{skipWorkload}}}
			r = with(r, odd[g.IntN(len(odd))], "parent", "metadata", "labels")
		case 7:
			r = with(r, g.textOr(), "parent", "metadata", "labels", skipWorkload)
		case 8: // its children are then those of the new name
			name := g.text()
			r = with(r, name, "parent", "metadata", "name")
			r = with(r, at(r, child...), "children", kind, "default/"+name)
		case 9:
			r = with(r, g.textOr(), "parent", "metadata", []string{"name", "namespace"}[g.IntN(2)])
		case 10, 11:
			related := g.themes(func(theme any) any { return object{{"kind", "Theme"}, {"spec", theme}} })
			r = with(r, related, "related", themeKind)
		case 12:
			r = with(r, g.value(2), slices.Clone([]string{"related", themeKind, "dark"})[:1+g.IntN(3)]...)
		case 13:
			r = with(r, g.value(3), child[:1+g.IntN(3)]...)
		case 14:
			r = with(r, g.value(2), in([]string{"metadata", "status", "spec"}[g.IntN(3)])...)
		case 15:
			r = with(r, g.value(2), in("metadata", "annotations")...)
		case 16, 17:
			r = with(r, compact(g.value(3)), in("metadata", "annotations", lastAppliedKeys[g.IntN(2)])...)
		case 18:
			r = with(r, g.textOr(), in("metadata", "annotations", lastAppliedKeys[g.IntN(2)])...)
		case 19: // restated as observed
			r = with(r, object{{"other", g.value(2)}}, in("metadata", "annotations")...)
			r = with(r, g.value(3), in(g.text())...)
		case 20, 21:
			odd := []any{numbers[g.IntN(len(numbers))], numbers[g.IntN(len(numbers))], g.IntN(2) == 0, g.value(1)}
			r = with(r, odd[g.IntN(len(odd))], "children", deploymentKind, "default/museum", "status", "availableReplicas")
		case 22:
			r = with(r, "unknown", "parent", "spec", "theme")
		case 23:
			path := [][]string{{"parent"}, {"parent", "metadata"}, {"parent", "spec"}, {"children"}, {"related"}}[g.IntN(5)]
			r = with(r, g.value(2), path...)
		}
	}
	return r
}

// sent is the request's text: in ASCII or UTF-8, now and then not JSON.
func (g generator) sent(request object) string {
	text := compact(request)
	if g.IntN(2) == 0 {
		text = inUTF8(request)
	}
	if g.IntN(40) == 0 {
		cut := g.IntN(len(text))
		return text[:cut] + []string{"", "}", "]", ",", "x", "\xff", "\n"}[g.IntN(7)] + text[cut:][g.IntN(len(text)-cut):]
	}
	return text
}

func TestBothExamplesAnswerAlike(t *testing.T) {
	g := generator{Rand: rand.New(rand.NewPCG(*seed, 0))}
	for _, name := range strings.Fields("new observed observed related-theme skip-workload unknown-theme unknown-theme") {
		g.base = append(g.base, fixture(t, name+".request"))
	}
	path := filepath.Join(t.TempDir(), "themes.json")
	write := func(themes object) {
		if err := os.WriteFile(path, []byte(inUTF8(themes)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(shippedThemes)
	python, golang := startBoth(t, path)
	both := pair{connect(t, python), connect(t, golang)}
	seen := map[string]int{}
	for i := range *requests {
		if i%20 == 19 {
			write(g.themes(func(theme any) any { return theme }))
		}
		text := g.sent(g.request())
		code, reply := both.compare(t, text)
		outcome := fmt.Sprint(code)
		if value, _ := parse([]byte(reply)); code == 200 {
			outcome = fmt.Sprint(at(value, "status", "phase"))
		}
		seen[outcome]++
	}
	t.Logf("seed %d: %v", *seed, seen)
	for _, outcome := range []string{"Ready", "Pending", "Error", "400", "500"} {
		if seen[outcome] < *requests/50 {
			t.Errorf("%d requests of %d ended as %s: too few to say that both answer alike", seen[outcome], *requests, outcome)
		}
	}
}

// Every character that has been in Unicode for long, so that it doesn't matter which version either language has.
const oldCharacters = `
import json, unicodedata
old = unicodedata.ucd_3_2_0
every = (chr(code) for code in range(0x110000))
kept = (c for c in every if old.category(c) not in ("Cn", "Cs") and old.category(c) == unicodedata.category(c))
print(json.dumps("".join(kept)))`

func TestBothExamplesTreatCharactersAlike(t *testing.T) {
	printed, err := exec.Command(python3(t), "-c", oldCharacters).Output()
	if err != nil {
		t.Fatal(err)
	}
	value, err := parse(printed)
	if err != nil {
		t.Fatal(err)
	}
	all := []rune(value.(string))
	if len(all) < 90_000 {
		t.Fatalf("only %d characters", len(all))
	}
	python, golang := startBoth(t, "")
	both := pair{connect(t, python), connect(t, golang)}
	for some := range slices.Chunk(all, 10_000) {
		text := string(some)
		request := with(fixture(t, "related-theme.request"), text, "related", themeKind, "dark", "spec", "color")
		for _, title := range []any{text, []any{text}} {
			if code, reply := both.compare(t, compact(with(request, title, "parent", "spec", "title"))); code != 200 {
				t.Errorf("%d %s", code, reply)
			}
		}
	}
}

func TestBothExamplesRefuseAlike(t *testing.T) {
	python, golang := startBoth(t, "")
	oversized := head("POST", "/sync", maxBodyBytes+1)
	for _, request := range []string{
		head("GET", "/healthz", 0), head("GET", "/healthz?verbose", 0), head("GET", "/healthz/", 0), head("GET", "/sync", 0),
		head("GET", "/sync?x", 0), head("GET", "/", 0), head("GET", "/../healthz", 0), head("GET", "/%68ealthz", 0),
		head("POST", "/", 2) + "{}", head("POST", "/healthz", 2) + "{}", head("POST", "/sync?x", 2) + "{}",
		head("POST", "/sync", 2) + "{}",
		oversized, head("POST", "/nothing", maxBodyBytes+1),
		strings.Replace(oversized, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1),
		head("HEAD", "/healthz", 0), head("PUT", "/sync", 2) + "{}", head("DELETE", "/sync", 0), head("OPTIONS", "*", 0),
		head("PATCH", "/sync", 0),
		"POST /sync HTTP/1.1\r\nHost: hook\r\n\r\n",
		"POST /sync HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
		"POST /sync HTTP/1.1\r\nHost: hook\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"POST /sync HTTP/1.1\r\nHost: hook\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	} {
		answer := func(address string) string {
			c := connect(t, address)
			c.write(request)
			method, _, _ := strings.Cut(request, " ")
			response, body := c.reply(method)
			for response.StatusCode == http.StatusContinue {
				response, body = c.reply(method)
			}
			said := fmt.Sprintf("%d close=%v", response.StatusCode, response.Close)
			if response.StatusCode != http.StatusNotImplemented { // which Python words in HTML
				said += fmt.Sprintf(" %v %v %s", response.Header["Allow"], response.Header["Content-Type"], body)
			}
			return said
		}
		expect(t, request, answer(golang), answer(python))
	}
}
