//! libFuzzer over one of the parsers, named by `MFPSYNC_FUZZ_TARGET`; started by `scripts/fuzz`.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mfpsync_tests::fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MFPSYNC_FUZZ_TARGET").unwrap_or_default();
    let target = Target::named(&name);
    target.unwrap_or_else(|| panic!("MFPSYNC_FUZZ_TARGET={name:?} names none of the targets"))
});

/// Where libFuzzer keeps what it found interesting; it begins with the samples.
fn begin() {
    let corpus = Path::new("corpus").join(TARGET.name);
    for (number, bytes) in TARGET.corpus().iter().enumerate() {
        fs::write(corpus.join(format!("sample-{number}")), bytes)
            .unwrap_or_else(|error| panic!("corpus: {error}"));
    }
}

fuzz_target!(init: begin(), |bytes: &[u8]| {
    (TARGET.run)(bytes);
});
