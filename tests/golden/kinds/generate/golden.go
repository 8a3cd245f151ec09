// Sends cases to the server and records its answers.
//
// A case is a list of steps in the namespace `golden`; what a case made is deleted after it. Values that differ from run
// to run are replaced: uid, resourceVersion, times, the cluster IP that the server chose, its pick of a node port.

// In a body "$RV" is the version that the step before answered, and $BIG is a string of 1 MiB and a byte.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const namespace = "golden"

type step struct {
	// create, update, status
	Do string `json:"do"`
	// "apps/v1 deployments"
	Resource string `json:"resource"`
	// Strict, Warn or Ignore; Strict if empty.
	FieldValidation string          `json:"fieldValidation,omitempty"`
	Body            json.RawMessage `json:"body"`
}

type goldenCase struct {
	Name  string `json:"name"`
	Steps []step `json:"steps"`
}

type recorded struct {
	step
	Code     int      `json:"code"`
	Warnings []string `json:"warnings,omitempty"`
	Answer   any      `json:"answer"`
}

func record(s *server, cases, out string) error {
	text, err := os.ReadFile(cases)
	if err != nil {
		return err
	}
	files := map[string][]goldenCase{}
	if err := json.Unmarshal(text, &files); err != nil {
		return fmt.Errorf("%s: %w", cases, err)
	}
	body := []byte(`{"metadata":{"name":"` + namespace + `"}}`)
	if answer, err := s.do("POST", "/api/v1/namespaces", "application/json", "application/json", body); err != nil {
		return err
	} else if answer.code != http.StatusCreated && answer.code != http.StatusConflict {
		return fmt.Errorf("create namespace: %s", answer.body)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for file, list := range files {
		answers := map[string][]recorded{}
		for _, one := range list {
			if answers[one.Name] != nil {
				return fmt.Errorf("%s: two cases %q", file, one.Name)
			}
			if answers[one.Name], err = play(s, one); err != nil {
				return fmt.Errorf("%s: %s: %w", file, one.Name, err)
			}
		}
		text, err := lines(list, answers)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, file+".json"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lines writes a step a line.
func lines(list []goldenCase, answers map[string][]recorded) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	for i, one := range list {
		fmt.Fprintf(&text, "%s %q: [\n", []string{",", "{"}[btoi(i == 0)], one.Name)
		for j, step := range answers[one.Name] {
			text.WriteString([]string{", ", "  "}[btoi(j == 0)])
			if err := encoder.Encode(step); err != nil {
				return nil, err
			}
		}
		text.WriteString(" ]\n")
	}
	text.WriteString("}\n")
	return text.Bytes(), nil
}

func btoi(condition bool) int {
	if condition {
		return 1
	}
	return 0
}

func play(s *server, one goldenCase) ([]recorded, error) {
	var answers []recorded
	var made []string
	version := ""
	for _, step := range one.Steps {
		gv, plural, _ := strings.Cut(step.Resource, " ")
		group, _, found := strings.Cut(gv, "/")
		if !found {
			group = ""
		}
		path := root(group, gv[strings.LastIndex(gv, "/")+1:]) + "/"
		if namespaced(plural) {
			path += "namespaces/" + namespace + "/"
		}
		path += plural
		var meta struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		// A body may be wrong on purpose.
		_ = json.Unmarshal(step.Body, &meta)
		verb := "POST"
		if step.Do != "create" {
			verb = "PUT"
			path += "/" + meta.Metadata.Name
		}
		if step.Do == "status" {
			path += "/status"
		}
		validation := step.FieldValidation
		if validation == "" {
			validation = "Strict"
		}
		body := bytes.ReplaceAll(step.Body, []byte(`"$RV"`), []byte(`"`+version+`"`))
		body = bytes.ReplaceAll(body, []byte("$BIG"), bytes.Repeat([]byte("x"), 1<<20+1))
		answer, err := s.do(verb, path+"?fieldValidation="+validation, "application/json", "application/json", body)
		if err != nil {
			return nil, err
		}
		object := map[string]any{}
		decoder := json.NewDecoder(bytes.NewReader(answer.body))
		decoder.UseNumber()
		if err := decoder.Decode(&object); err != nil {
			return nil, fmt.Errorf("%s: %w", answer.body, err)
		}
		if meta, ok := object["metadata"].(map[string]any); ok && meta["name"] != nil {
			version, _ = meta["resourceVersion"].(string)
			if answer.code == http.StatusCreated {
				made = append(made, strings.TrimSuffix(path, "/"+meta["name"].(string))+"/"+meta["name"].(string))
			}
		}
		answers = append(answers, recorded{step, answer.code, answer.warnings, normalise(object)})
	}
	for _, path := range made {
		options := []byte(`{"gracePeriodSeconds":0,"propagationPolicy":"Background"}`)
		if _, err := s.do("DELETE", path, "application/json", "application/json", options); err != nil {
			return nil, err
		}
		finalizers := []byte(`{"metadata":{"finalizers":null}}`)
		if _, err := s.do("PATCH", path, "application/merge-patch+json", "application/json", finalizers); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func namespaced(plural string) bool {
	switch plural {
	case "namespaces", "clusterroles", "clusterrolebindings", "customresourcedefinitions":
		return false
	}
	return true
}

var clusterIP = regexp.MustCompile(`"10\.0\.0\.[0-9]+"`)

// uidInText is a uid the answer of which doesn't name it otherwise: that of an object that was refused.
var uidInText = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

func normalise(object map[string]any) any {
	if meta, ok := object["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
		for _, name := range []string{"creationTimestamp", "resourceVersion"} {
			if meta[name] != nil {
				meta[name] = "CHANGES"
			}
		}
	}
	if spec, ok := object["spec"].(map[string]any); ok && object["kind"] == "Service" {
		ports, _ := spec["ports"].([]any)
		for _, port := range ports {
			if port := port.(map[string]any); port["nodePort"] != nil {
				port["nodePort"] = 30000
			}
		}
		if spec["healthCheckNodePort"] != nil {
			spec["healthCheckNodePort"] = 30000
		}
	}
	if status, ok := object["status"].(map[string]any); ok && object["kind"] == "Pod" {
		conditions, _ := status["conditions"].([]any)
		for _, condition := range conditions {
			if condition := condition.(map[string]any); condition["reason"] == "SchedulingGated" {
				condition["lastTransitionTime"] = "CHANGES"
			}
		}
	}
	if details, ok := object["details"].(map[string]any); ok && details["causes"] != nil {
		// It only lists the causes, each once.
		delete(object, "message")
	}
	if object["kind"] == "CustomResourceDefinition" {
		// Its controller writes it at once.
		delete(object, "status")
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	text = uidInText.ReplaceAll(text, []byte("UID"))
	if object["kind"] == "Service" {
		text = clusterIP.ReplaceAll(text, []byte(`"10.0.0.1"`))
	}
	var clean any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&clean); err != nil {
		panic(err)
	}
	return clean
}
