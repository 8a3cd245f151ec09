// Reduces an OpenAPI v3 document to the served kinds.

package main

import (
	"fmt"
	"regexp"
	"strings"
)

const reference = "#/components/schemas/"

// schemaOf finds the component of a kind.
func schemaOf(document map[string]any, group, version, kind string) (string, error) {
	for name, schema := range document["components"].(map[string]any)["schemas"].(map[string]any) {
		list, _ := schema.(map[string]any)["x-kubernetes-group-version-kind"].([]any)
		for _, entry := range list {
			gvk := entry.(map[string]any)
			if gvk["group"] == group && gvk["version"] == version && gvk["kind"] == kind {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("no schema of %s/%s %s", group, version, kind)
}

// reduce keeps the paths of the kinds, their status and scale, and what these reach. Only what the embedded server
// speaks stays among the media types.
func reduce(document map[string]any, kinds []kind, gv string) {
	paths := document["paths"].(map[string]any)
	for path := range paths {
		if !kept(path, kinds, gv) {
			delete(paths, path)
		}
	}
	dropMediaTypes(paths)
	components := document["components"].(map[string]any)
	schemas := components["schemas"].(map[string]any)
	reached := map[string]any{}
	reach(paths, schemas, reached)
	components["schemas"] = reached
	delete(components, "securitySchemes")
}

func kept(path string, kinds []kind, gv string) bool {
	for _, one := range kinds {
		if groupVersion(one.Group, one.Version) != gv {
			continue
		}
		at := regexp.QuoteMeta(root(one.Group, one.Version))
		scope := ""
		if one.Namespaced {
			scope = `(/namespaces/\{namespace\})?`
		}
		subresources := ""
		if len(one.Subresources) > 0 {
			subresources = "(/(" + strings.Join(one.Subresources, "|") + "))?"
		}
		if regexp.MustCompile("^" + at + scope + "/" + one.Plural + `(/\{name\}` + subresources + ")?$").MatchString(path) {
			return true
		}
	}
	return false
}

func dropMediaTypes(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if strings.Contains(key, "protobuf") || strings.Contains(key, "cbor") {
				delete(value, key)
				continue
			}
			dropMediaTypes(inner)
		}
	case []any:
		for _, inner := range value {
			dropMediaTypes(inner)
		}
	}
}

func reach(value any, schemas, reached map[string]any) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if target, ok := inner.(string); ok && key == "$ref" {
				name := strings.TrimPrefix(target, reference)
				if _, done := reached[name]; !done {
					reached[name] = schemas[name]
					reach(schemas[name], schemas, reached)
				}
				continue
			}
			reach(inner, schemas, reached)
		}
	case []any:
		for _, inner := range value {
			reach(inner, schemas, reached)
		}
	}
}
