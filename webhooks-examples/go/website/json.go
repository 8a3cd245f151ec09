// JSON as the hook needs it: objects that keep the order of their keys, numbers that keep their digits, and values
// written as Python writes them, so that this hook's replies equal those of the Python example byte for byte.
// Never takes what isn't JSON (RFC 8259): NaN, Infinity, bodies that aren't UTF-8.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// object is a JSON object. Its values are nil, bool, string, int, *big.Int, float64, []any or object.
type object []field

type field struct {
	key   string
	value any
}

// maxDigits is how long an integer may be. Python's limit, so that both hooks refuse the same.
const maxDigits = 4300

// get is the value of key, nil where there is none.
func (o object) get(key string) any {
	value, _ := o.find(key)
	return value
}

func (o object) find(key string) (any, bool) {
	for _, field := range o {
		if field.key == key {
			return field.value, true
		}
	}
	return nil, false
}

// parse reads one JSON value. Of equal keys in an object, the last one's value counts. encoding/json checks the text,
// and how deep it is.
func parse(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if !json.Valid(text) {
		return nil, json.Unmarshal(text, new(any)) // says why
	}
	r := reader{rest: text}
	value := r.value()
	return value, r.err
}

// reader takes values off JSON that has been checked: nothing is missing, nothing is too much.
type reader struct {
	rest []byte
	err  error // the first number that is out of bounds
}

// next is the first byte after white space, commas and colons, which stays.
func (r *reader) next() byte {
	for {
		switch r.rest[0] {
		case ' ', '\t', '\r', '\n', ',', ':':
			r.rest = r.rest[1:]
		default:
			return r.rest[0]
		}
	}
}

func (r *reader) take(length int) string {
	taken := string(r.rest[:length])
	r.rest = r.rest[length:]
	return taken
}

func (r *reader) value() any {
	switch r.next() {
	case '{':
		return r.object()
	case '[':
		return r.array()
	case '"':
		return r.text()
	case 'n':
		r.take(len("null"))
		return nil
	case 't':
		r.take(len("true"))
		return true
	case 'f':
		r.take(len("false"))
		return false
	}
	return r.number()
}

func (r *reader) array() []any {
	array := []any{}
	for r.take(1); r.next() != ']'; {
		array = append(array, r.value())
	}
	r.take(1)
	return array
}

func (r *reader) object() object {
	read, at := object{}, map[string]int{}
	for r.take(1); r.next() != '}'; {
		key := r.text() // at its first byte, since `next` has been called
		value := r.value()
		if place, twice := at[key]; twice {
			read[place].value = value
			continue
		}
		at[key] = len(read)
		read = append(read, field{key, value})
	}
	r.take(1)
	return read
}

func (r *reader) text() string {
	end := 1
	for r.rest[end] != '"' {
		if r.rest[end] == '\\' {
			end++
		}
		end++
	}
	quoted := r.rest[:end+1]
	r.rest = r.rest[end+1:]
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:end])
	}
	var text string
	r.note(json.Unmarshal(quoted, &text))
	return text
}

func (r *reader) number() any {
	end := bytes.IndexFunc(r.rest, func(char rune) bool { return !strings.ContainsRune("+-.0123456789eE", char) })
	if end < 0 {
		end = len(r.rest)
	}
	number, err := parseNumber(r.take(end))
	r.note(err)
	return number
}

func (r *reader) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// parseNumber keeps integers exact; the rest are float64.
func parseNumber(text string) (any, error) {
	if strings.ContainsAny(text, ".eE") {
		return strconv.ParseFloat(text, 64)
	}
	if digits := len(strings.TrimPrefix(text, "-")); digits > maxDigits {
		return nil, fmt.Errorf("an integer of %d digits; the limit is %d", digits, maxDigits)
	}
	number, _ := new(big.Int).SetString(text, 10)
	return number, nil
}

// truthy says what Python's `if value` says.
func truthy(value any) bool {
	switch value := value.(type) {
	case nil:
		return false
	case bool:
		return value
	case string:
		return value != ""
	case int:
		return value != 0
	case *big.Int:
		return value.Sign() != 0
	case float64:
		return value != 0
	case []any:
		return len(value) > 0
	case object:
		return len(value) > 0
	}
	return true
}

// compact writes JSON without spaces, in ASCII: json.dumps(value, separators=(",", ":")).
func compact(value any) string {
	var text strings.Builder
	writeJSON(&text, value, ",", ":")
	return text.String()
}

// spaced writes JSON in ASCII as json.dumps(value) does.
func spaced(value any) string {
	var text strings.Builder
	writeJSON(&text, value, ", ", ": ")
	return text.String()
}

func writeJSON(text *strings.Builder, value any, comma, colon string) {
	switch value := value.(type) {
	case nil:
		text.WriteString("null")
	case bool:
		text.WriteString(strconv.FormatBool(value))
	case string:
		writeString(text, value)
	case []any:
		text.WriteByte('[')
		for i, item := range value {
			if i > 0 {
				text.WriteString(comma)
			}
			writeJSON(text, item, comma, colon)
		}
		text.WriteByte(']')
	case object:
		text.WriteByte('{')
		for i, field := range value {
			if i > 0 {
				text.WriteString(comma)
			}
			writeString(text, field.key)
			text.WriteString(colon)
			writeJSON(text, field.value, comma, colon)
		}
		text.WriteByte('}')
	default:
		text.WriteString(python(value)) // a number
	}
}

var shortEscapes = map[rune]string{
	'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\f': `\f`, '\b': `\b`,
}

func writeString(text *strings.Builder, value string) {
	text.WriteByte('"')
	for _, char := range value {
		short, special := "", false
		if char < ' ' || char == '"' || char == '\\' {
			short, special = shortEscapes[char]
		}
		switch {
		case special:
			text.WriteString(short)
		case char >= ' ' && char <= '~':
			text.WriteByte(byte(char))
		case char > 0xffff:
			high, low := utf16.EncodeRune(char)
			fmt.Fprintf(text, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(text, `\u%04x`, char)
		}
	}
	text.WriteByte('"')
}

// python is str(value) of Python.
func python(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	return repr(value)
}

// repr is repr(value) of Python.
func repr(value any) string {
	switch value := value.(type) {
	case nil:
		return "None"
	case bool:
		if value {
			return "True"
		}
		return "False"
	case string:
		return reprString(value)
	case float64:
		return reprFloat(value)
	case []any:
		items := make([]string, len(value))
		for i, item := range value {
			items[i] = repr(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case object:
		items := make([]string, len(value))
		for i, field := range value {
			items[i] = repr(field.key) + ": " + repr(field.value)
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return fmt.Sprint(value) // int or *big.Int
}

// reprFloat is the shortest text that reads back as the same number; exponents from 1e16 up and below 1e-4.
func reprFloat(value float64) string {
	text := strconv.FormatFloat(value, 'e', -1, 64)
	exponent, _ := strconv.Atoi(text[strings.IndexByte(text, 'e')+1:])
	if exponent < -4 || exponent >= 16 {
		return text
	}
	text = strconv.FormatFloat(value, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

func reprString(value string) string {
	quote := '\''
	if strings.Contains(value, "'") && !strings.Contains(value, `"`) {
		quote = '"'
	}
	var text strings.Builder
	text.WriteRune(quote)
	for _, char := range value {
		switch {
		case char == quote || char == '\\':
			text.WriteByte('\\')
			text.WriteRune(char)
		case char == '\n' || char == '\r' || char == '\t':
			text.WriteString(shortEscapes[char])
		case unicode.IsPrint(char):
			text.WriteRune(char)
		case char <= 0xff:
			fmt.Fprintf(&text, `\x%02x`, char)
		case char <= 0xffff:
			fmt.Fprintf(&text, `\u%04x`, char)
		default:
			fmt.Fprintf(&text, `\U%08x`, char)
		}
	}
	text.WriteRune(quote)
	return text.String()
}
