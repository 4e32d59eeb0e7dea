#![no_main]

libfuzzer_sys::fuzz_target!(
    // A wrong option is told before any input is tried.
    init: siltstone::fuzzing::check_options(),
    |data: &[u8]| siltstone::fuzzing::operations(data)
);
