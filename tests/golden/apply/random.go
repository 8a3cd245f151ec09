package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
)

var managers = []string{"a", "b", "kubectl"}

// Objects of the Thing CRD, by which managers change what and apply what.
func randomScenarios(count int, seed int64) []scenario {
	r := rand.New(rand.NewSource(seed))
	var all []scenario
	for range count {
		s := scenario{Kind: "Thing"}
		for range 3 + r.Intn(3) {
			version := fmt.Sprintf("golden.dev/v%d", 1+r.Intn(8)/7)
			st := step{Apply: r.Intn(2) == 0, Manager: managers[r.Intn(len(managers))], APIVersion: version}
			st.Force = st.Apply && r.Intn(2) == 0
			if len(s.Steps) > 0 && r.Intn(8) == 0 {
				st.Subresource = "status"
			}
			object := map[string]any{"apiVersion": version, "kind": "Thing", "metadata": map[string]any{"name": "t"}}
			if r.Intn(3) == 0 {
				object["metadata"].(map[string]any)["labels"] = some(r, 2, func() any { return pick(r, "x", "y") })
			}
			if r.Intn(5) > 0 || st.Subresource == "" {
				object["spec"] = part(r, 0)
			}
			if st.Subresource == "status" || r.Intn(4) == 0 {
				object["status"] = map[string]any{"conditions": list(r, 3, func(i int) any {
					return map[string]any{"type": fmt.Sprint("T", i), "status": pick(r, "True", "False")}
				})}
			}
			st.Given = marshal(object)
			s.Steps = append(s.Steps, st)
		}
		all = append(all, s)
	}
	return all
}

func pick(r *rand.Rand, values ...any) any { return values[r.Intn(len(values))] }

func some(r *rand.Rand, n int, value func() any) map[string]any {
	out := map[string]any{}
	for i := range n {
		if r.Intn(2) == 0 {
			out[fmt.Sprint("k", i)] = value()
		}
	}
	return out
}

func list(r *rand.Rand, n int, value func(int) any) []any {
	out := []any{}
	for _, i := range r.Perm(n) {
		if r.Intn(3) > 0 {
			out = append(out, value(i))
		}
	}
	return out
}

func part(r *rand.Rand, depth int) map[string]any {
	out := map[string]any{}
	fields := map[string]func() any{
		"text":   func() any { return pick(r, "p", "q", nil) },
		"number": func() any { return pick(r, 1, 2, 2.5) },
		"either": func() any { return pick(r, 1, "25%") },
		"map":    func() any { return some(r, 3, func() any { return pick(r, "1", "2", nil) }) },
		"atomic": func() any { return some(r, 2, func() any { return pick(r, "1", "2") }) },
		"free": func() any {
			return pick(r, 1, map[string]any{"a": pick(r, 1, map[string]any{"b": 1}), "l": []any{1}}, []any{1, 2}, map[string]any{})
		},
		"plain": func() any { return list(r, 3, func(i int) any { return i }) },
		"set":   func() any { return list(r, 5, func(i int) any { return fmt.Sprint("s", i) }) },
		"ports": func() any {
			return list(r, 4, func(i int) any {
				port := map[string]any{"port": 80 + i/2}
				if i%2 == 1 {
					port["protocol"] = pick(r, "UDP", "UDP", "TCP")
				}
				if r.Intn(2) == 0 {
					port["note"] = pick(r, "m", "n")
				}
				return port
			})
		},
	}
	if depth < 2 {
		fields["parts"] = func() any {
			return list(r, 3, func(i int) any {
				inner := part(r, depth+1)
				inner["name"] = fmt.Sprint("n", i)
				return inner
			})
		}
		fields["inner"] = func() any { return pick(r, part(r, depth+1), map[string]any{}) }
	}
	names := []string{"text", "number", "either", "map", "atomic", "free", "plain", "set", "ports", "parts", "inner"}
	for _, name := range names {
		if make, ok := fields[name]; ok && r.Intn(3+2*depth) == 0 {
			out[name] = make()
		}
	}
	return out
}

// The CRD that the scenarios of Thing are of: two versions, one schema.
const definition = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.golden.dev"},
"spec":{"group":"golden.dev","scope":"Namespaced","names":{"plural":"things","singular":"thing","kind":"Thing","listKind":"ThingList"},
"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":$SCHEMA}},
{"name":"v2","served":true,"storage":false,"subresources":{"status":{}},"schema":{"openAPIV3Schema":$SCHEMA}}]}}`

var thing = func() string {
	port := `{"type":"object","required":["port"],"properties":{"port":{"type":"integer"},"protocol":{"type":"string","default":"TCP"},"note":{"type":"string"}}}`
	fields := `"text":{"type":"string","nullable":true},"number":{"type":"number"},"either":{"x-kubernetes-int-or-string":true},
	"map":{"type":"object","additionalProperties":{"type":"string","nullable":true}},
	"atomic":{"type":"object","x-kubernetes-map-type":"atomic","additionalProperties":{"type":"string"}},
	"free":{"x-kubernetes-preserve-unknown-fields":true},
	"plain":{"type":"array","items":{"type":"integer"}},
	"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
	"ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["port","protocol"],"items":` + port + `}`
	leaf := `{"type":"object","required":["name"],"properties":{"name":{"type":"string"},` + fields + `}}`
	middle := `{"type":"object","properties":{"name":{"type":"string"},` + fields + `,"parts":{"type":"array","x-kubernetes-list-type":"map",
		"x-kubernetes-list-map-keys":["name"],"items":` + leaf + `},"inner":` + leaf + `}}`
	text := `{"type":"object","properties":{"spec":{"type":"object","properties":{` + fields + `,"parts":{"type":"array","x-kubernetes-list-type":"map",
		"x-kubernetes-list-map-keys":["name"],"items":` + middle + `},"inner":` + middle + `,
		"open":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"known":{"type":"string"},"list":{"type":"array","items":{"type":"object"}}}},
		"template":{"type":"object","x-kubernetes-embedded-resource":true,"properties":{"spec":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}},
	"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"conditions":{"type":"array","x-kubernetes-list-type":"map",
		"x-kubernetes-list-map-keys":["type"],"items":{"type":"object","required":["type"],"properties":{"type":{"type":"string"},"status":{"type":"string"}}}}}}}}`
	return string(json.RawMessage(compact(text)))
}()
