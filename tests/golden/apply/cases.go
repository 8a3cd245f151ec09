package main

func update(manager, given string) step { return step{Manager: manager, Given: []byte(given)} }
func apply(manager, given string) step {
	return step{Manager: manager, Given: []byte(given), Apply: true}
}
func (s step) forced() step             { s.Force = true; return s }
func (s step) status() step             { s.Subresource = "status"; return s }
func (s step) version(name string) step { s.APIVersion = name; return s }

func configMap(rest string) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}` + rest + `}`
}

func deployment(rest string) string {
	return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{` + rest + `}}`
}

func containers(list string) string {
	return deployment(`"template":{"spec":{"containers":[` + list + `]}}`)
}

func service(ports string) string {
	return `{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[` + ports + `]}}`
}

func object(rest string) string {
	return `{"apiVersion":"golden.dev/v1","kind":"Thing","metadata":{"name":"t"},` + rest + `}`
}

func second(rest string) string {
	return `{"apiVersion":"golden.dev/v2","kind":"Thing","metadata":{"name":"t"},` + rest + `}`
}

func scenarios() []scenario {
	var all []scenario
	add := func(kind string, steps ...step) { all = append(all, scenario{kind, steps}) }

	// Updates: who changes it, has it.
	add("ConfigMap", update("a", configMap(`,"data":{"k":"1","l":"2"}`)), update("b", configMap(`,"data":{"k":"1","l":"3"}`)),
		update("a", configMap(`,"data":{"k":"1","l":"3"}`)), update("b", configMap(`,"data":{"k":"1","m":"4"}`)), update("a", configMap(``)))
	add("ConfigMap", update("", configMap(`,"data":{"k":"1"}`)), update("", configMap(`,"data":{"k":"2"}`)))
	add("ConfigMap", update("a", configMap(`,"data":{}`)), update("b", configMap(`,"data":{"k":"1"}`)), update("c", configMap(`,"data":{}`)))
	add("ConfigMap", update("a", configMap(`,"data":null`)), update("b", configMap(`,"data":{"k":null}`)), update("c", configMap(`,"data":{"k":""}`)))
	add("ConfigMap", update("a", configMap(`,"immutable":true,"binaryData":{"x":"eA=="}`)), update("b", configMap(`,"immutable":false`)))
	add("ConfigMap", update("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"n","uid":"u","resourceVersion":"1","generation":1,
		"creationTimestamp":"2026-01-01T00:00:00Z","generateName":"c-","labels":{"a":"b"},"annotations":{"x/y":"z"},"finalizers":["f.io/1","f.io/2"],
		"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u1"},{"apiVersion":"v1","kind":"Pod","name":"q","uid":"u2","controller":true}]}}`),
		update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{"a":"c"},"finalizers":["f.io/2","f.io/3"],
		"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"q","uid":"u2","controller":false}]}}`),
		update("c", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{},"finalizers":[],"annotations":null}}`))

	// Entries that a client gives.
	mine := `,"data":{"k":"1","l":"2"}`
	add("ConfigMap", update("a", configMap(mine)), update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":[]},"data":{"k":"2"}}`),
		update("c", configMap(`,"data":{"k":"3"}`)), apply("d", configMap(`,"data":{"k":"4"}`)), apply("d", configMap(`,"data":{"k":"4"}`)).forced())
	add("ConfigMap", update("a", configMap(mine)), update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":[{}]},"data":{"k":"2"}}`))
	add("ConfigMap", update("a", configMap(mine)), update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":null},"data":{"k":"2"}}`))
	add("ConfigMap", update("a", configMap(mine)), update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":[
		{"manager":"z","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","time":"2026-01-01T00:00:01Z","fieldsV1":{"f:data":{"f:l":{},"f:k":{},"x:odd":{}}}},
		{"manager":"y","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","time":"2026-01-01T00:00:01Z","fieldsV1":{"f:data":{".":{},"f:l":{}},"f:metadata":{"f:labels":{}}}}
		]},"data":{"k":"2","l":"2"}}`), apply("y", configMap(`,"data":{"m":"1"}`)))
	for _, bad := range []string{`{"manager":"z","operation":"Replace","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{}}`,
		`{"manager":"z","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{}}`, `{"manager":"z","operation":"Update","apiVersion":"v1","fieldsV1":{}}`,
		`{"manager":"z","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV2","fieldsV1":{}}`,
		`{"manager":"z","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"bad":{}}}`,
		`{"manager":"z","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"k:{bad":{}}}`,
		`{"manager":"z","operation":"Update","apiVersion":"v9","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:l":{}}}}`} {
		add("ConfigMap", update("a", configMap(mine)), update("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":[`+bad+`]},"data":{"k":"2","l":"2"}}`))
	}
	var many []step
	for i := range 14 {
		manager := string(rune('a' + i))
		many = append(many, update(manager, configMap(`,"data":{"k`+manager+`":"1"}`)))
	}
	for i := range many {
		if i > 0 {
			// Each adds a key to those before.
			many[i].Given = append(append(many[i-1].Given[:len(many[i-1].Given)-2:len(many[i-1].Given)-2], `,"k`+string(rune('a'+i))+`":"1"`...), "}}"...)
		}
	}
	add("ConfigMap", many...)

	// Apply.
	add("ConfigMap", apply("a", configMap(mine)), apply("a", configMap(mine)), apply("a", configMap(`,"data":{"k":"1"}`)),
		apply("a", configMap(`,"data":{}`)), apply("a", configMap(``)))
	add("ConfigMap", apply("a", configMap(mine)), apply("b", configMap(`,"data":{"k":"1"}`)), apply("a", configMap(`,"data":{"l":"2"}`)),
		apply("b", configMap(`,"data":{"k":"5"}`)), apply("b", configMap(``)))
	add("ConfigMap", apply("a", configMap(mine)), apply("b", configMap(`,"data":{"k":"2","l":"3"}`)), apply("b", configMap(`,"data":{"k":"2","l":"3"}`)).forced(),
		apply("a", configMap(mine)), apply("c", configMap(`,"data":{"k":"9"}`)))
	add("ConfigMap", update("u", configMap(mine)), apply("a", configMap(`,"data":{"k":"1","n":"1"}`)), apply("a", configMap(`,"data":{"n":"1"}`)),
		apply("a", configMap(`,"data":{"l":"x"}`)), update("u", configMap(`,"data":{"n":"2"}`)), apply("a", configMap(`,"data":{"n":"1"}`)))
	add("ConfigMap", apply("a", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"c"}}`), apply("a", `{"kind":"ConfigMap","metadata":{"name":"c"}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":[]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","managedFields":null}}`))
	for _, bad := range []string{`,"data":{"k":1}`, `,"data":["a"]`, `,"data":"x"`, `,"immutable":"x"`, `,"odd":1`, `,"data":{"k":{"a":[1,"b",null,true]}}`, `,"immutable":[1]`} {
		add("ConfigMap", apply("a", configMap(bad)))
	}
	add("ConfigMap", apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":["a","b","a"]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":["b","a"]}}`),
		apply("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":["c","a"]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":["d","a"]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":[null]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":[{"a":1}]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":[["a"]]}}`),
		apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":[]}}`))
	// Keys that need quotes.
	add("ConfigMap", apply("a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","finalizers":["<&>\"\\é"]},"data":{"a.b/c":"1","sp ace":"<x>"}}`),
		apply("b", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a.b/c":"2","sp ace":"3"}}`))

	// Client-side apply before server-side apply.
	const last = `"annotations":{"kubectl.kubernetes.io/last-applied-configuration":`
	csa := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c",` + last +
		`"{\"apiVersion\":\"v1\",\"data\":{\"k\":\"1\",\"l\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"c\"}}\n"}},"data":{"k":"1","l":"2","m":"3"}}`
	add("ConfigMap", update("kubectl-client-side-apply", csa), apply("kubectl", configMap(`,"data":{"k":"5","l":"<6>"}`)), apply("kubectl", configMap(`,"data":{"k":"5"}`)))
	add("ConfigMap", update("kubectl-client-side-apply", csa), apply("kubectl", configMap(`,"data":{"k":"5","m":"6"}`)), apply("kubectl", configMap(`,"data":{"k":"5","m":"6"}`)).forced())
	add("ConfigMap", update("kubectl-client-side-apply", csa), apply("other", configMap(`,"data":{"k":"5"}`)))
	add("ConfigMap", update("x", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c",`+last+`"{}"}},"data":{"k":"1"}}`), apply("kubectl", configMap(`,"data":{"k":"5"}`)),
		apply("kubectl", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c",`+last+`"mine","x":"y"}},"data":{"k":"5"}}`).forced())

	// Containers, their environment, ports and volumes.
	one := `{"name":"one","image":"i:1"}`
	two := `{"name":"two","image":"i:2"}`
	three := `{"name":"three","image":"i:3"}`
	add("Deployment", apply("a", containers(one+","+two)), apply("b", containers(three+","+one)), apply("a", containers(two)), apply("b", containers(`{"name":"two","image":"i:9"}`)),
		apply("b", containers(`{"name":"two","image":"i:9"},{"name":"three","tty":true}`)).forced(), apply("a", containers(two+","+three)))
	add("Deployment", update("u", containers(one+","+two+","+three)), apply("a", containers(three+","+one)), apply("a", containers(`{"name":"new"},`+three)), apply("a", containers(one)))
	add("Deployment", apply("a", containers(`{"name":"one","env":[{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"C","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],
		"ports":[{"containerPort":80},{"containerPort":80,"protocol":"UDP"},{"containerPort":81,"name":"x"}],"volumeMounts":[{"mountPath":"/a","name":"v"}],"args":["x","y"],
		"resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":1}}}`)),
		apply("b", containers(`{"name":"one","env":[{"name":"D","value":"4"},{"name":"B","value":"3"}],"ports":[{"containerPort":80,"protocol":"TCP","hostPort":1}],"args":["z"]}`)),
		apply("b", containers(`{"name":"one","env":[{"name":"D","value":"4"},{"name":"B","value":"3"}],"ports":[{"containerPort":80,"protocol":"TCP","hostPort":1}],"args":["z"]}`)).forced(),
		apply("a", containers(`{"name":"one","env":[{"name":"C","value":"3","valueFrom":null},{"name":"A","value":"1"}],"ports":[{"containerPort":81}]}`)))
	for _, bad := range []string{`{"image":"x"}`, `{"name":"one"},{"name":"one"}`, `null`, `"x"`, `{"name":"one","ports":[{"protocol":"TCP"}]}`, `{"name":"one","ports":[{"containerPort":"80"}]}`,
		`{"name":"one","odd":{"a":1}}`, `{"name":"one","env":{"A":"1"}}`, `{"name":"one","livenessProbe":{"httpGet":{"port":{"a":1}}}}`, `{"name":"one","image":7,"tty":"x"}`, `{"name":1}`} {
		add("Deployment", update("u", containers(one)), apply("a", containers(bad)))
	}
	add("Deployment", apply("a", deployment(`"replicas":3,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{
		"volumes":[{"name":"v","emptyDir":{}},{"name":"w","configMap":{"name":"c","items":[{"key":"k","path":"p"}]}}],"nodeSelector":{"x":"y"},"tolerations":[{"key":"k"}],
		"imagePullSecrets":[{"name":"s"}],"hostAliases":[{"ip":"1.1.1.1","hostnames":["h"]}],"securityContext":{"runAsUser":1},
		"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"z","whenUnsatisfiable":"DoNotSchedule"}]}}`)),
		apply("b", deployment(`"replicas":3`)), apply("b", deployment(`"replicas":4,"selector":{"matchLabels":{"a":"c"}}`)),
		apply("b", deployment(`"replicas":4,"selector":{"matchLabels":{"a":"c"}},"template":{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/"}}],"nodeSelector":{"x":"z"}}}`)).forced(),
		apply("a", deployment(`"template":{"spec":{"nodeSelector":{}}}`)))
	add("Deployment", update("a", deployment(`"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"paused":true,"selector":{}`)),
		update("b", deployment(`"strategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":1.0}},"selector":{"matchLabels":{}}`)), update("c", deployment(``)))
	// The status is another's.
	whole := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"a":"b"}},"spec":{"replicas":1},"status":{"replicas":1,"conditions":[{"type":"A","status":"True"}]}}`
	changed := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"a":"c"},"annotations":{"x":"y"}},"spec":{"replicas":2},"status":{"replicas":2,"conditions":[{"type":"A","status":"False"},{"type":"B","status":"True"}]}}`
	add("Deployment", update("a", whole), update("b", changed).status(), update("a", changed), apply("c", changed).status(), apply("c", changed), update("b", whole).status())
	add("Deployment", apply("a", whole), apply("a", whole).status(), apply("b", changed).status(), apply("b", changed).status().forced(), apply("a", changed).forced())

	// Service ports.
	add("Service", apply("a", service(`{"port":80,"name":"http"},{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"}`)), apply("b", service(`{"port":443,"name":"https","targetPort":"tls"}`)),
		apply("b", service(`{"port":80,"name":"web","protocol":"TCP"}`)), apply("a", service(`{"port":53,"protocol":"UDP","targetPort":5353}`)), update("u", service(`{"port":80,"protocol":"TCP","name":"x"}`)))
	add("Service", update("u", service(`{"port":80},{"port":80}`)), update("v", service(`{"port":80},{"port":80,"name":"x"}`)), update("w", service(`{"port":80,"name":"y"}`)),
		update("v", service(`{"port":80,"name":"y"},{"port":80}`)), apply("a", service(`{"port":80,"name":"z"}`)), apply("a", service(`{"port":80,"name":"z"}`)).forced())
	add("Service", apply("a", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"selector":{"a":"b"},"externalIPs":["1.1.1.1"],"type":"ClusterIP"},"status":{"loadBalancer":{"ingress":[{"ip":"1.1.1.1"}]}}}`),
		apply("b", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"selector":{"c":"d"},"externalIPs":["2.2.2.2"]}}`), apply("b", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"selector":{"a":"b","c":"d"}}}`).forced(),
		update("k", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"selector":{"a":"b"}},"status":{"loadBalancer":{"ingress":[{"ip":"1.1.1.2"}]},"conditions":[{"type":"A"}]}}`).status())

	// Custom kinds.
	add("Thing", apply("a", object(`"spec":{"set":["x","y"],"plain":[1,2],"map":{"a":"1"},"atomic":{"a":"1"},"free":{"a":{"b":[1]}},"either":1}`)),
		apply("b", object(`"spec":{"set":["z","y"],"map":{"b":"2"}}`)), apply("b", object(`"spec":{"plain":[1],"atomic":{"b":"2"},"free":{"a":{"c":1}},"either":"1"}`)),
		apply("b", object(`"spec":{"plain":[1],"atomic":{"b":"2"},"free":{"a":{"c":1,"b":2}},"either":"1"}`)).forced(), apply("a", object(`"spec":{}`)), apply("b", object(`"spec":null`)))
	add("Thing", apply("a", object(`"spec":{"free":1}`)), apply("b", object(`"spec":{"free":{"a":1}}`)), apply("b", object(`"spec":{"free":{"a":1}}`)).forced(), apply("c", object(`"spec":{"free":[1]}`)).forced(), update("u", object(`"spec":{"free":null}`)))
	add("Thing", apply("a", object(`"spec":{"open":{"known":"k","other":{"x":1},"list":[{"a":1}]},"template":{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b"},"finalizers":["f"]},"spec":{"c":[1]}}}`)),
		apply("b", object(`"spec":{"open":{"other":{"y":2}},"template":{"metadata":{"labels":{"c":"d"}},"spec":{"d":1}}}`)), apply("b", object(`"spec":{"open":{"known":7}}`)), apply("b", object(`"spec":{"odd":7}`)),
		apply("a", object(`"spec":{"template":{"spec":{}}}`)))
	add("Thing", apply("a", object(`"spec":{"parts":[{"name":"p","parts":[{"name":"q","text":"1"}],"inner":{"name":"i","set":["a"]}}]}`)), apply("b", object(`"spec":{"parts":[{"name":"r"},{"name":"p","parts":[{"name":"q","number":1}]}]}`)),
		apply("a", object(`"spec":{"parts":[{"name":"p"}]}`)), apply("b", object(`"spec":{"parts":[]}`)), apply("a", object(`"spec":{"parts":null}`)))
	// Two versions of one kind.
	add("Thing", apply("a", object(`"spec":{"text":"1","map":{"a":"1","b":"1"}}`)).version("golden.dev/v1"), apply("b", second(`"spec":{"text":"2","number":1}`)).version("golden.dev/v2"),
		apply("b", second(`"spec":{"text":"2","number":1}`)).version("golden.dev/v2").forced(), apply("a", second(`"spec":{"map":{"a":"1"}}`)).version("golden.dev/v2"), update("u", second(`"spec":{"map":{"a":"2"}}`)).version("golden.dev/v2"),
		update("u", object(`"spec":{"map":{"a":"3","b":"4"}}`)).version("golden.dev/v1"))
	// Lists and maps that weren't one value before.
	add("Thing", update("a", object(`"spec":{"atomic":{"a":"1"},"plain":[1],"set":["x"]}`)), update("b", `{"apiVersion":"golden.dev/v1","kind":"Thing","metadata":{"name":"t","managedFields":[
		{"manager":"z","operation":"Apply","apiVersion":"golden.dev/v1","fieldsType":"FieldsV1","time":"2026-01-01T00:00:01Z","fieldsV1":{"f:spec":{"f:atomic":{".":{},"f:a":{}},"f:plain":{"v:1":{}},"f:set":{},"f:free":{"f:x":{}}}}},
		{"manager":"y","operation":"Apply","apiVersion":"golden.dev/v3","fieldsType":"FieldsV1","time":"2026-01-01T00:00:01Z","fieldsV1":{"f:spec":{"f:text":{}}}}
		]},"spec":{"atomic":{"a":"1"},"plain":[1],"set":["x"],"text":"1"}}`), apply("z", object(`"spec":{"plain":[1]}`)))
	add("Thing", update("a", object(`"spec":{"text":"1"},"status":{"x":1}`)), update("b", object(`"spec":{"text":"2"},"status":{"x":2,"conditions":[{"type":"A"}]}`)).status(),
		update("c", `{"apiVersion":"golden.dev/v1","kind":"Thing","metadata":{"name":"t","labels":{"a":"b"}},"spec":{"text":"1"},"status":{"x":3}}`).status(), apply("d", object(`"status":{"x":3,"y":1}`)).status(), apply("d", object(`"spec":{"text":"1"},"status":{"x":4}`)))
	return all
}
