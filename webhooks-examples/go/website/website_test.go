// Tests of what a Website wants: every fixture pair of the Python example, and what the replies must keep.
// Never needs a cluster. The fixtures are those of ../../python/website; its tests rewrite them.

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const pythonExample = "../../python/website"

// fixture is a request or reply of the Python example's.
func fixture(t *testing.T, name string) object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(pythonExample, "fixtures", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return value.(object)
}

// with is a copy of o in which the value at path is another one; objects on the way are made where they are missing.
func with(o object, value any, path ...string) object {
	o = slices.Clone(o)
	at := slices.IndexFunc(o, func(f field) bool { return f.key == path[0] })
	if at < 0 {
		at = len(o)
		o = append(o, field{path[0], object{}})
	}
	if len(path) > 1 {
		inner, _ := o[at].value.(object)
		value = with(inner, value, path[1:]...)
	}
	o[at].value = value
	return o
}

// at is the value at a path.
func at(value any, path ...string) any {
	for _, key := range path {
		inner, _ := value.(object)
		value = inner.get(key)
	}
	return value
}

func mustSync(t *testing.T, request object) object {
	t.Helper()
	reply, err := Sync(request, shippedThemes)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s\n got: %v\nwant: %v", what, got, want)
	}
}

func TestRepliesAreGolden(t *testing.T) {
	requests, _ := filepath.Glob(filepath.Join(pythonExample, "fixtures", "*.request.json"))
	if len(requests) < 5 {
		t.Fatalf("%d fixtures", len(requests))
	}
	for _, path := range requests {
		name := strings.TrimSuffix(filepath.Base(path), ".request.json")
		t.Run(name, func(t *testing.T) {
			request := fixture(t, name+".request")
			before := compact(request)
			expect(t, "reply", compact(mustSync(t, request)), compact(fixture(t, name+".reply")))
			expect(t, "request after sync", compact(request), before)
		})
	}
}

func TestBadRequestsNameTheField(t *testing.T) {
	whole := object{{"parent", fixture(t, "new.request").get("parent")}}
	for _, c := range []struct {
		request object
		field   string
	}{
		{object{}, "parent"},
		{object{{"parent", []any{}}}, "parent"},
		{with(whole, nil, "parent", "metadata"), "parent.metadata"},
		{with(whole, 1, "parent", "spec"), "parent.spec"},
		{with(whole, object{{"name", "a"}}, "parent", "metadata"), "parent.metadata.namespace"},
		{with(whole, "", "parent", "metadata", "name"), "parent.metadata.name"},
	} {
		_, err := Sync(c.request, shippedThemes)
		bad, ok := err.(badRequest)
		named, _, _ := strings.Cut(string(bad), ":")
		if !ok || named != c.field {
			t.Errorf("%s: %v instead of a bad request about %s", compact(c.request), err, c.field)
		}
	}
}

func TestReadyNeedsEveryChildAndAvailableReplicas(t *testing.T) {
	request := fixture(t, "observed.request")
	expect(t, "phase", at(mustSync(t, request), "status", "phase"), "Ready")
	without := with(request, object{}, "children", deploymentKind, "default/museum", "status")
	expect(t, "message", at(mustSync(t, without), "status", "message"), "0 of 1 replicas available")
	for _, kind := range childKinds {
		reply := mustSync(t, with(request, object{}, "children", kind))
		expect(t, kind, at(reply, "status", "message"), "waiting for "+strings.Split(kind, ".")[0])
	}
}

func TestAChildWithoutARecordIsRestatedAsObserved(t *testing.T) {
	request := fixture(t, "unknown-theme.request")
	service := []string{"children", "Service.v1", "default/museum"}
	for _, record := range []string{"", "{", "[]"} {
		broken := with(request, record, append(service, "metadata", "annotations", lastAppliedKeys[0])...)
		kept := mustSync(t, broken).get("children").([]any)[1].(object)
		expect(t, "spec", compact(kept.get("spec")), compact(at(request, append(service, "spec")...)))
		if _, has := kept.find("status"); has || at(kept, "metadata", "uid") != nil {
			t.Errorf("has fields of the API server: %s", compact(kept))
		}
	}
}

func TestThePageIsEscaped(t *testing.T) {
	request := with(fixture(t, "related-theme.request"), "<script>", "parent", "spec", "title")
	request = with(request, "red; } </style><script>", "related", themeKind, "dark", "spec", "color")
	page := at(mustSync(t, request).get("children").([]any)[0], "data", "index.html").(string)
	if strings.Contains(page, "<script>") || !strings.Contains(page, "background: red  stylescript;") {
		t.Error(page)
	}
}

func TestValuesAreWrittenAsPythonDoes(t *testing.T) {
	for _, c := range []struct{ text, json, str string }{
		{`null`, `null`, `None`},
		{`[true, false]`, `[true, false]`, `[True, False]`},
		{`-0`, `0`, `0`},
		{`12345678901234567890123`, `12345678901234567890123`, `12345678901234567890123`},
		{`[1E5, 1e15, 1e16, 0.0001, 0.00001, -0.0]`, `[100000.0, 1000000000000000.0, 1e+16, 0.0001, 1e-05, -0.0]`,
			`[100000.0, 1000000000000000.0, 1e+16, 0.0001, 1e-05, -0.0]`},
		{`"ü\u007f😀\n/"`, `"\u00fc\u007f\ud83d\ude00\n/"`, "ü\x7f😀\n/"},
		{`["it's", "\"", "'\"", "\\\u0000\u00ad\u2028"]`, `["it's", "\"", "'\"", "\\\u0000\u00ad\u2028"]`,
			`["it's", '"', '\'"', '\\\x00\xad\u2028']`},
		{`{"a": 1, "b": {}, "a": 2}`, `{"a": 2, "b": {}}`, `{'a': 2, 'b': {}}`},
	} {
		value, err := parse([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		expect(t, "JSON of "+c.text, spaced(value), c.json)
		expect(t, "str of "+c.text, python(value), c.str)
	}
	for _, text := range []string{
		"", "{", "[1,]", "{} {}", "NaN", "\xff", "\ufeff{}", "1e999", strings.Repeat("1", maxDigits+1),
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
	} {
		if value, err := parse([]byte(text)); err == nil {
			t.Errorf("%.20q was taken as %v", text, value)
		}
	}
}
