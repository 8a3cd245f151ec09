// Writes the golden answers that the embedded API server's patches are tested with, computed by the libraries that
// Kubernetes uses: strategic merge patch by apimachinery, JSON patch and JSON merge patch by evanphx/json-patch v4, and
// the words for malformed JSON by Go.
// It never talks to a server: the OpenAPI documents are files.
//
//	kubectl get --raw /openapi/v3/api/v1 > core.json; kubectl get --raw /openapi/v3/apis/apps/v1 > apps.json
//	go run . core.json apps.json > ../../../src/apiserver/patch/golden.json
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// What the API server sets at its start (apiserver/pkg/server/config.go: JSONPatchMaxCopyBytes).
const copyLimitBytes = 3 * 1024 * 1024

type kind struct {
	Schema string `json:"schema"`
	empty  any
}

var kinds = map[string]kind{
	"Deployment": {"io.k8s.api.apps.v1.Deployment", &appsv1.Deployment{}},
	"Service":    {"io.k8s.api.core.v1.Service", &corev1.Service{}},
	"Pod":        {"io.k8s.api.core.v1.Pod", &corev1.Pod{}},
	"ConfigMap":  {"io.k8s.api.core.v1.ConfigMap", &corev1.ConfigMap{}},
}

// One input and what came of it: a result, or an error with the HTTP code the API server gives it; code 0 for a panic.
type answer struct {
	Kind   string          `json:"kind,omitempty"`
	Doc    json.RawMessage `json:"doc,omitempty"`
	Patch  json.RawMessage `json:"patch"`
	Result json.RawMessage `json:"result,omitempty"`
	Code   *int            `json:"code,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func compact(text string) json.RawMessage {
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		log.Fatalf("%v in %s", err, text)
	}
	return out.Bytes()
}

func (a *answer) fail(code int, text string) { a.Code, a.Error, a.Result = &code, text, nil }

func (a *answer) recovered() {
	if cause := recover(); cause != nil {
		a.fail(0, fmt.Sprint(cause))
	}
}

// As interpretStrategicMergePatchError in apiserver/pkg/endpoints/handlers/patch.go.
func code(err error) int {
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList):
		return 400
	case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys):
		return 422
	}
	return 500
}

func strategic(name, patch string) (a answer) {
	a = answer{Kind: name, Patch: compact(patch)}
	defer a.recovered()
	var original, change map[string]any
	if err := kjson.Unmarshal(compact(originals[name]), &original); err != nil {
		log.Fatal(err)
	}
	if err := kjson.Unmarshal(a.Patch, &change); err != nil {
		log.Fatal(err)
	}
	result, err := strategicpatch.StrategicMergeMapPatch(original, change, kinds[name].empty)
	if err != nil {
		a.fail(code(err), err.Error())
		return a
	}
	if a.Result, err = json.Marshal(result); err != nil {
		log.Fatal(err)
	}
	return a
}

func plain(doc, patch string, apply func(doc, patch []byte) ([]byte, error)) (a answer) {
	// The server's own text of an object is escaped for HTML.
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, compact(doc))
	a = answer{Doc: escaped.Bytes(), Patch: json.RawMessage(patch)}
	defer a.recovered()
	result, err := apply(a.Doc, a.Patch)
	if err != nil {
		a.fail(422, err.Error())
		return a
	}
	a.Result = result
	return a
}

func jsonPatch(doc, patch []byte) ([]byte, error) {
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	return operations.Apply(doc)
}

// Keeps what tells how to merge.
func reduce(schema map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range schema {
		switch key {
		case "$ref", "type", "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy":
			out[key] = value
		case "items", "additionalProperties":
			if inner, ok := value.(map[string]any); ok {
				out[key] = reduce(inner)
			}
		case "allOf":
			var list []any
			for _, inner := range value.([]any) {
				list = append(list, reduce(inner.(map[string]any)))
			}
			out[key] = list
		case "properties":
			properties := map[string]any{}
			for name, inner := range value.(map[string]any) {
				properties[name] = reduce(inner.(map[string]any))
			}
			out[key] = properties
		}
	}
	return out
}

func refs(value any, visit func(string)) {
	switch typed := value.(type) {
	case map[string]any:
		for key, inner := range typed {
			if text, ok := inner.(string); ok && key == "$ref" {
				visit(strings.TrimPrefix(text, "#/components/schemas/"))
			}
			refs(inner, visit)
		}
	case []any:
		for _, inner := range typed {
			refs(inner, visit)
		}
	}
}

func schemas(files []string) map[string]any {
	every, kept := map[string]any{}, map[string]any{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		var document struct {
			Components struct{ Schemas map[string]any }
		}
		if err := json.Unmarshal(text, &document); err != nil {
			log.Fatal(err)
		}
		for name, schema := range document.Components.Schemas {
			every[name] = schema
		}
	}
	var keep func(string)
	keep = func(name string) {
		if _, ok := kept[name]; ok {
			return
		}
		schema, ok := every[name].(map[string]any)
		if !ok {
			log.Fatalf("no schema %s", name)
		}
		kept[name] = reduce(schema)
		refs(kept[name], keep)
	}
	for _, kind := range kinds {
		keep(kind.Schema)
	}
	return kept
}

func main() {
	jsonpatch.AccumulatedCopySizeLimit = copyLimitBytes
	var golden struct {
		Kubernetes string                     `json:"kubernetes"`
		Kinds      map[string]kind            `json:"kinds"`
		Originals  map[string]json.RawMessage `json:"originals"`
		Strategic  []answer                   `json:"strategic"`
		JSON       []answer                   `json:"json"`
		Merge      []answer                   `json:"merge"`
		Syntax     [][2]string                `json:"syntax"`
		Schemas    map[string]any             `json:"schemas"`
	}
	golden.Kubernetes, golden.Kinds, golden.Schemas = "v1.36.3", kinds, schemas(os.Args[1:])
	golden.Originals = map[string]json.RawMessage{}
	for name, text := range originals {
		golden.Originals[name] = compact(text)
	}
	for _, group := range strategicCases {
		for _, patch := range group.patches {
			golden.Strategic = append(golden.Strategic, strategic(group.kind, patch))
		}
	}
	for _, patch := range jsonCases {
		golden.JSON = append(golden.JSON, plain(document, patch, jsonPatch))
	}
	for _, patch := range mergeCases {
		golden.Merge = append(golden.Merge, plain(document, patch, jsonpatch.MergePatch))
	}
	for _, text := range syntaxCases {
		var value any
		err := json.Unmarshal([]byte(text), &value)
		if err == nil {
			log.Fatalf("%q is JSON", text)
		}
		golden.Syntax = append(golden.Syntax, [2]string{text, err.Error()})
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false) // The patches stay as they are written.
	if err := encoder.Encode(golden); err != nil {
		log.Fatal(err)
	}
}
