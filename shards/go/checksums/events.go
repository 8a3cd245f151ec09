// What the shard did, one JSON object a line. Never buffers: a line is written when it is told.

package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

type line struct {
	// Microseconds since the epoch.
	TS     int64  `json:"ts"`
	Shard  string `json:"shard"`
	Event  string `json:"event"`
	Object string `json:"object,omitempty"`
	Verb   string `json:"verb,omitempty"`
	Name   string `json:"name,omitempty"`
	RV     string `json:"rv,omitempty"`
	Code   int32  `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// events writes lines, each with one call.
type events struct {
	shard string

	mu  sync.Mutex
	out io.Writer
}

func (e *events) write(what line) {
	e.mu.Lock()
	defer e.mu.Unlock()
	what.TS, what.Shard = time.Now().UnixMicro(), e.shard
	text, err := json.Marshal(what)
	if err != nil {
		panic(err) // A struct of strings and numbers.
	}
	// Whoever reads it may have gone; the shard goes on.
	_, _ = e.out.Write(append(text, '\n'))
}
