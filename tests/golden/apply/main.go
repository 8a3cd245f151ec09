// Writes the golden answers that the embedded API server's tracking of fields and its server-side apply are tested with,
// computed by the libraries that Kubernetes uses: apimachinery's managedfields over structured-merge-diff, with the types
// of the OpenAPI documents of the built-in kinds and of a CRD built by apiextensions-apiserver.
// It never talks to a server: the documents are those beside the embedded server's kinds.
//
//	go run . ../../../src/apiserver/kinds/openapi > ../../../src/apiserver/apply/golden.json
//
// With -random 4000 -seed 7 it makes more than the repository should hold; the test takes any such file in its place.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// One write. What follows Given is what came of it.
type step struct {
	Apply       bool            `json:"apply,omitempty"`
	Manager     string          `json:"manager"`
	Force       bool            `json:"force,omitempty"`
	Subresource string          `json:"subresource,omitempty"`
	APIVersion  string          `json:"apiVersion,omitempty"`
	Given       json.RawMessage `json:"given"`

	Managed json.RawMessage `json:"managed,omitempty"`
	Object  json.RawMessage `json:"object,omitempty"`
	Code    int32           `json:"code,omitempty"`
	Error   string          `json:"error,omitempty"`
	Causes  json.RawMessage `json:"causes,omitempty"`
}

type scenario struct {
	Kind  string `json:"kind"`
	Steps []step `json:"steps"`
}

var kinds = map[string]schema.GroupVersionKind{
	"ConfigMap":  {Version: "v1", Kind: "ConfigMap"},
	"Service":    {Version: "v1", Kind: "Service"},
	"Pod":        {Version: "v1", Kind: "Pod"},
	"Deployment": {Group: "apps", Version: "v1", Kind: "Deployment"},
	"Thing":      {Group: "golden.dev", Version: "v1", Kind: "Thing"},
}

// What a kind doesn't take, by subresource.
var reset = map[string]map[string][]fieldpath.Path{
	"Deployment": {
		"":       {fieldpath.MakePathOrDie("status")},
		"status": {fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata", "labels")},
	},
	"Service": {"": {fieldpath.MakePathOrDie("status")}, "status": {fieldpath.MakePathOrDie("spec")}},
	"Thing": {
		"":       {fieldpath.MakePathOrDie("status")},
		"status": {fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec")},
	},
}

// Versions differ in nothing but their names.
type renaming struct{}

func (renaming) Convert(in, out, context interface{}) error { return fmt.Errorf("not used") }
func (renaming) ConvertFieldLabel(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	return "", "", fmt.Errorf("not used")
}
func (renaming) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	out := in.DeepCopyObject()
	from := in.GetObjectKind().GroupVersionKind()
	gvk, ok := to.KindForGroupVersionKinds([]schema.GroupVersionKind{from})
	if !ok {
		gv := to.(schema.GroupVersion)
		gvk = gv.WithKind(from.Kind)
	}
	out.GetObjectKind().SetGroupVersionKind(gvk)
	return out, nil
}
func (renaming) Default(runtime.Object) {}
func (renaming) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	out := &unstructured.Unstructured{Object: map[string]interface{}{}}
	out.SetGroupVersionKind(kind)
	return out, nil
}

func readSchemas(folder string) map[string]*spec.Schema {
	schemas := map[string]*spec.Schema{}
	files, err := filepath.Glob(filepath.Join(folder, "*.json.gz"))
	check(err)
	for _, file := range files {
		packed, err := os.Open(file)
		check(err)
		reader, err := gzip.NewReader(packed)
		check(err)
		var document spec3.OpenAPI
		check(json.NewDecoder(reader).Decode(&document))
		for name, known := range document.Components.Schemas {
			schemas[name] = known
		}
	}
	return schemas
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func compact(text string) json.RawMessage {
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		log.Fatalf("%v in %s", err, text)
	}
	return out.Bytes()
}

func marshal(value any) json.RawMessage {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(value))
	return bytes.TrimSpace(out.Bytes())
}

type player struct {
	converter managedfields.TypeConverter
}

func (p *player) manager(kind, apiVersion, subresource string) *managedfields.FieldManager {
	gvk := kinds[kind]
	if apiVersion != "" {
		gv, err := schema.ParseGroupVersion(apiVersion)
		check(err)
		gvk = gv.WithKind(gvk.Kind)
	}
	filters := map[fieldpath.APIVersion]*fieldpath.Set{}
	if paths := reset[kind][subresource]; paths != nil {
		for _, version := range []string{gvk.GroupVersion().String(), "golden.dev/v1", "golden.dev/v2"} {
			filters[fieldpath.APIVersion(version)] = fieldpath.NewSet(paths...)
		}
	}
	made, err := managedfields.NewDefaultCRDFieldManager(p.converter, renaming{}, renaming{}, renaming{}, gvk, kinds[kind].GroupVersion(),
		subresource, fieldpath.NewExcludeFilterSetMap(filters))
	check(err)
	return made
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *player) play(s *scenario) {
	var live *unstructured.Unstructured
	for i := range s.Steps {
		st := &s.Steps[i]
		st.Given = compact(strings.ReplaceAll(strings.ReplaceAll(string(st.Given), "\n", ""), "\t", ""))
		given := &unstructured.Unstructured{}
		check(json.Unmarshal(st.Given, &given.Object))
		manager := p.manager(s.Kind, st.APIVersion, st.Subresource)
		gvk := kinds[s.Kind]
		before := live
		if live == nil {
			empty, _ := renaming{}.New(gvk)
			before = empty.(*unstructured.Unstructured)
		}
		var out runtime.Object
		var err error
		if st.Apply {
			out, err = manager.Apply(before, given, st.Manager, st.Force)
		} else {
			out = manager.UpdateNoErrors(before, given.DeepCopy(), st.Manager)
		}
		if err != nil {
			st.Error = err.Error()
			st.Code = 500
			if status, ok := err.(errors.APIStatus); ok {
				st.Code = status.Status().Code
				if details := status.Status().Details; details != nil && len(details.Causes) > 0 {
					st.Causes = marshal(details.Causes)
				}
			}
			continue
		}
		next := out.(*unstructured.Unstructured).DeepCopy()
		next.SetUID("u")
		// As the server stores it.
		next.SetGroupVersionKind(gvk)
		now := metav1.NewTime(start.Add(time.Duration(i+1) * time.Second))
		entries := next.GetManagedFields()
		for at := range entries {
			// What was just written carries the time of today.
			if entries[at].Time != nil && entries[at].Time.Sub(start) > time.Hour {
				entries[at].Time = &now
			}
		}
		next.SetManagedFields(entries)
		if len(entries) == 0 {
			next.SetManagedFields(nil)
		}
		live = next
		st.Managed = marshal(entries)
		if st.Apply {
			shown := next.DeepCopy()
			shown.SetManagedFields(nil)
			st.Object = marshal(shown.Object)
		}
	}
}

func main() {
	random := flag.Int("random", 37, "how many random scenarios")
	seed := flag.Int64("seed", 1, "of the random scenarios")
	flag.Parse()
	schemas := readSchemas(flag.Arg(0))
	crd := &apiextensionsv1.CustomResourceDefinition{}
	check(json.Unmarshal([]byte(strings.ReplaceAll(definition, "$SCHEMA", thing)), crd))
	for _, version := range crd.Spec.Versions {
		built, err := builder.BuildOpenAPIV3(crd, version.Name, builder.Options{})
		check(err)
		for name, made := range built.Components.Schemas {
			schemas[name] = made
		}
	}
	converter, err := managedfields.NewTypeConverter(schemas, false)
	check(err)
	p := &player{converter}
	all := append(scenarios(), randomScenarios(*random, *seed)...)
	for i := range all {
		p.play(&all[i])
	}
	out := map[string]any{"schema": json.RawMessage(compact(thing)), "scenarios": all}
	os.Stdout.Write(marshal(out))
}
