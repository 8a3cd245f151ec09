//! Fuzzes the target `patch`.
#![no_main]

#[global_allocator]
static MEMORY: ringmaster_fuzz::Memory = ringmaster_fuzz::memory();

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmaster_fuzz_targets::patch::run(data));
