//! Frozen bytes, in `tests/golden` of the crate under test.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What is found equals the file; one that is missing is written if that is asked for.
pub(crate) fn frozen(name: &str, found: &str) {
    let path = golden(name);
    if !path.exists() && std::env::var_os("MFPSYNC_GOLDEN").is_some() {
        std::fs::create_dir_all(golden("")).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(found, expected, "{name} changed: that is a change of format");
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chunks(32).map(|line| line.concat() + "\n").collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What is encoded now equals the file; what the file holds decodes to the value.
pub(crate) fn record<T: Debug + PartialEq, E: Debug>(
    name: &str,
    value: &T,
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    frozen(name, &hex(bytes));
    let stored = unhex(&std::fs::read_to_string(golden(name)).unwrap());
    assert_eq!(&decode(&stored).unwrap(), value, "{name}");
}
