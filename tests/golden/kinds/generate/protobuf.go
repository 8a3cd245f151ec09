// Writes one object of each Go type with every field set, in JSON and in protobuf, for the tests of the decoder.

package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxFillDepth ends types that hold themselves (JSON schemas).
const maxFillDepth = 12

type filledObject struct {
	Type     string          `json:"type"`
	JSON     json.RawMessage `json:"json"`
	Protobuf []byte          `json:"protobuf"`
}

func filledObjects() ([]filledObject, error) {
	var list []filledObject
	for _, root := range sortedRoots() {
		object := reflect.New(reflect.TypeOf(roots[root]))
		count := 0
		fill(object.Elem(), &count, 0)
		text, err := json.Marshal(object.Interface())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", root, err)
		}
		message, ok := object.Interface().(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, fmt.Errorf("%s is no protobuf message", root)
		}
		bytes, err := message.Marshal()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", root, err)
		}
		list = append(list, filledObject{expression(object.Type().Elem()), text, bytes})
	}
	return list, nil
}

func fill(v reflect.Value, count *int, depth int) {
	*count++
	n := *count
	switch special := v.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		// Protobuf has it in the envelope.
		return
	case *metav1.Time:
		special.Time = time.Unix(int64(1700000000+n), 0).UTC()
		return
	case *metav1.MicroTime:
		special.Time = time.Unix(int64(1700000000+n), 1000*int64(n)).UTC()
		return
	case *resource.Quantity:
		*special = *resource.NewQuantity(int64(n), resource.DecimalSI)
		return
	case *intstr.IntOrString:
		if n%2 == 0 {
			*special = intstr.FromInt32(int32(n))
		} else {
			*special = intstr.FromString(fmt.Sprint("text", n))
		}
		return
	case *runtime.RawExtension:
		special.Raw = fmt.Appendf(nil, `{"raw":%d}`, n)
		return
	case *metav1.FieldsV1:
		special.Raw = fmt.Appendf(nil, `{"f:raw":{"n":%d}}`, n)
		return
	}
	if v.Type().Name() == "JSON" {
		v.Field(0).SetBytes(fmt.Appendf(nil, `{"json":%d}`, n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32:
		v.SetInt(int64(n) - 50)
	case reflect.Int64:
		v.SetInt(int64(n) << 32)
	case reflect.Float64:
		v.SetFloat(float64(n) + 0.5)
	case reflect.Pointer:
		if depth < maxFillDepth {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), count, depth+1)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{byte(n), 0, 255})
		} else if depth < maxFillDepth {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), count, depth+1)
			fill(v.Index(1), count, maxFillDepth)
		}
	case reflect.Map:
		if depth < maxFillDepth {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, count, depth+1)
			fill(value, count, depth+1)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), count, depth+1)
			}
		}
		// One of two, by a flag or by being there.
		switch v.Type().Name() {
		case "JSONSchemaPropsOrBool":
			if !v.FieldByName("Schema").IsNil() {
				v.FieldByName("Allows").SetBool(true)
			}
		case "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray":
			if !v.FieldByName("Schema").IsNil() {
				v.Field(1).SetZero()
			}
		}
	default:
		panic("unexpected kind " + v.Kind().String())
	}
}
