package shard

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime is a moment on a clock that goes on while the process is stopped or the machine sleeps.
func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		// It exists since Linux 2.6.39. Without it there is no right to work that could be counted.
		panic("CLOCK_BOOTTIME can't be read: " + err.Error())
	}
	return time.Duration(now.Nano())
}
