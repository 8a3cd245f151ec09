//go:build !linux

package shard

import "time"

var processStart = time.Now()

// boottime is a moment on Go's monotonic clock, which on some systems stands still while the machine sleeps.
func boottime() time.Duration {
	return time.Since(processStart)
}
