// Writes the golden assignments of external rings; nothing in Ringmaster imports this module.
module ringmaster.dev/tests/golden/ring

go 1.26.0

require github.com/cespare/xxhash/v2 v2.3.0
